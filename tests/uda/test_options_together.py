"""Options of self-training together: a step is finite for few and many classes, also of HRDA."""

from itertools import combinations
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

import pipa
from pipa.classes import LabelSpace
from pipa.run.recipes import MethodOptions, build_method
from pipa.uda.optim import Optim
from pipa.uda.terms import PatchTerm, PixelTerm
from uda.steps import Feed, batch_of, fit

NETWORKS: dict[str, dict[str, Any]] = {"small": {}, "hrda_small": {"detail": 32}}
ROWS: list[tuple[Any, ...]] = [  # classes, network, mix, pseudo_weight, align_shares, style
    (2, "small", "class", "share", 0.0, "fda"),
    (11, "hrda_small", "class", "confidence", 0.5, "fda"),
    (19, "small", "class", "balanced", 0.0, "colour"),
    (11, "hrda_small", "small", "share", 0.0, "colour"),
    (19, "small", "small", "confidence", 0.5, "colour"),
    (2, "small", "small", "balanced", 0.5, "fda"),
    (19, "small", "rectangle", "share", 0.5, "colour"),
    (2, "hrda_small", "rectangle", "confidence", 0.0, "fda"),
    (11, "hrda_small", "rectangle", "balanced", 0.5, "fda"),
    (2, "hrda_small", "none", "share", 0.0, "colour"),
    (11, "small", "none", "confidence", 0.0, "colour"),
    (19, "hrda_small", "none", "balanced", 0.5, "fda"),
]


def test_any_two_values_of_two_options_are_in_one_row() -> None:
    values = [sorted({row[i] for row in ROWS}) for i in range(6)]
    assert [len(each) for each in values] == [3, 2, 4, 3, 2, 2]
    for i, j in combinations(range(6), 2):
        assert len({(row[i], row[j]) for row in ROWS}) == len(values[i]) * len(values[j])


class Gradients(Callback):
    """The gradients of the last step."""

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        named = pl_module.named_parameters()
        self.of: dict[str, Tensor | None] = {
            name: None if p.grad is None else p.grad.clone() for name, p in named if p.requires_grad
        }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row)))
def test_a_step_is_finite_and_trains_the_whole_student(row: tuple[Any, ...]) -> None:
    classes, network, mix, pseudo_weight, align_shares, style = row
    torch.manual_seed(0)
    student = pipa.create_segmenter(network, classes, head={"width": 16}, **NETWORKS[network])
    labels = LabelSpace(tuple(f"c{i}" for i in range(classes)), ((0, 0, 0),) * classes)
    options = MethodOptions(
        name="pipa",
        confidence=0.1,
        mix=mix,
        pseudo_weight=pseudo_weight,
        align_shares=align_shares,
        style=style,
    )
    terms = [PixelTerm(width=16, dim=8), PatchTerm(threshold=0.0, width=16, dim=8, memory=60)]
    method = build_method(options, student, labels, terms, optim=Optim(warm_up=0))
    gradients = Gradients()
    fit(method, Feed([batch_of(side=64, classes=classes)]), callbacks=[gradients])
    assert method.last_step is not None
    pseudo = method.last_step.pseudo
    assert pseudo is not None
    assert pseudo.confidence.isfinite().all()
    assert pseudo.sure.any()
    assert set(method.losses) == {"source", "pixel", "mixed", "patch"}
    for name, loss in method.losses.items():
        assert loss.isfinite(), name
    assert method.losses["source"] > 0
    assert method.losses["mixed"] > 0
    for name, gradient in gradients.of.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any() or not name.startswith("student."), name
    for name, tensor in method.state_dict().items():
        assert tensor.isfinite().all(), name
