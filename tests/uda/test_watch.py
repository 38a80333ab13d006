"""Callbacks: pictures in TensorBoard, throughput, names in the bar, and the guard."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from pipa.batch import Batch
from pipa.errors import PipaError
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import PatchTerm, PixelTerm, SourceTerm
from pipa.uda.watch import (
    FiniteGuard,
    LearningRate,
    Pictures,
    Progress,
    PseudoLabels,
    Throughput,
    side_by_side,
)
from uda.steps import LABELS, Feed, batch_of, fit, small


class Breaks(SourceTerm):
    """A loss that is not finite from its second step on."""

    name = "breaks"

    def __init__(self, value: float) -> None:
        super().__init__(1.0, start=1)
        self.value = value

    def forward(self, prediction, source, generator=None):
        return prediction.outputs[0].logits.sum() * self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("every", [1, 2])
def test_the_guard_names_the_term(value, every):
    module = SelfTraining(small(), LABELS, source_terms=[Breaks(value)], start=100)
    feed = Feed([batch_of(seed) for seed in range(5)])
    with pytest.raises(PipaError, match=r"loss/breaks is -?(nan|inf) at step 2"):
        fit(module, feed, callbacks=[FiniteGuard()], log_every_n_steps=every)


def test_the_guard_lets_finite_losses_pass():
    fit(SourceOnly(small(), LABELS), Feed([batch_of()] * 2), callbacks=[FiniteGuard()])


def events(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_pictures_of_a_step(tmp_path):
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    module = SelfTraining(small(), LABELS)
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(module, feed, logger=board, callbacks=[Pictures(LABELS.colours, every=2)])
    board.finalize("success")
    found = events(tmp_path / "board")
    tags = {"source", "target and pseudo-label", "mixed", "the pair"}
    assert set(found.Tags()["images"]) == tags
    for tag in tags:
        pictures = found.Images(tag)
        assert [picture.step for picture in pictures] == [2, 4]
        assert (pictures[0].height, pictures[0].width) == (64, 64)  # two images, side by side
    assert "loss/mixed" in found.Tags()["scalars"]


def test_pictures_without_a_target(tmp_path):
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    feed = Feed([Batch(batch_of().source)])
    pictures = Pictures(LABELS.colours, every=1)
    fit(SourceOnly(small(), LABELS), feed, logger=board, callbacks=[pictures])
    board.finalize("success")
    assert events(tmp_path / "board").Tags()["images"] == ["source"]


def test_a_picture_shows_image_and_colours():
    image = torch.rand(2, 3, 4, 6)
    shown = side_by_side(image, torch.ones(2, 3, 2, 3))
    assert shown.shape == (3, 8, 12)
    assert torch.equal(shown[:, :4, :6], image[0])
    assert torch.equal(shown[:, 4:, :6], image[1])
    assert torch.equal(shown[:, :, 6:], torch.ones(3, 8, 6))
    panels = Pictures(LABELS.colours)._row(torch.zeros(1, 3, 1, 2), torch.tensor([[[1, 255]]]))
    assert panels[:, 0, 2].tolist() == pytest.approx([0, 200 / 255, 0])
    assert panels[:, 0, 3].tolist() == [0, 0, 0]


def test_throughput_counts_source_and_target():
    class Count(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen.append((throughput.images, trainer.callback_metrics.get("images_per_second")))

    seen, throughput = [], Throughput()
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(SelfTraining(small(), LABELS), feed, callbacks=[throughput, Count()], log_every_n_steps=2)
    assert [images for images, _ in seen] == [4, 0, 4, 0]
    assert seen[1][1] > 0


def test_the_rate_of_each_step_and_the_sure_pseudo_labels_are_logged(tmp_path):
    """With power 1 and no warm-up the rate falls by a quarter of the first in each of 4 steps."""
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    module = SelfTraining(small(), LABELS, optim=Optim(lr=1.0e-9, warm_up=0), confidence=0.0)
    callbacks = [LearningRate(), PseudoLabels(LABELS.names)]
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(module, feed, logger=board, callbacks=callbacks, log_every_n_steps=2)
    board.finalize("success")
    found = events(tmp_path / "board")
    assert [rate.value for rate in found.Scalars("lr")] == pytest.approx([0.75e-9, 0.25e-9])
    assert [sure.value for sure in found.Scalars("pseudo/sure")] == [1.0, 1.0]
    shares = [found.Scalars(f"pseudo_share/{name}")[-1].value for name in LABELS.names]
    assert sum(shares) == pytest.approx(1)


def test_the_bar_has_short_names(capsys):
    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            names.extend(trainer.progress_bar_callback.get_metrics(trainer, module))

    names = []
    bar = Progress(refresh_rate=1)
    fit(
        SelfTraining(small(), LABELS),
        Feed([batch_of()]),
        callbacks=[bar, Look()],
        enable_progress_bar=True,
    )
    assert {"source", "mixed"} <= set(names)
    assert not any("/" in name or name == "v_num" for name in names)


class Reads(TorchDispatchMode, Callback):
    """The steps in which Python asked a tensor for its value, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.found = 0, {}

    def on_train_batch_start(self, trainer, module, batch, index):
        self.now = index + 1

    def on_train_epoch_end(self, trainer, module):
        self.now = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if self.now and function is torch.ops.aten._local_scalar_dense.default:
            self.found[self.now] = self.found.get(self.now, 0) + 1
        return function(*args, **(kwargs or {}))


def test_a_step_that_does_not_log_reads_no_value():
    module = SelfTraining(small(), LABELS, source_terms=[PixelTerm()], target_terms=[PatchTerm()])
    feed = Feed([batch_of(seed) for seed in range(5)])
    with Reads() as reads:
        fit(
            module,
            feed,
            callbacks=[Progress(refresh_rate=3), Throughput(), FiniteGuard(), reads],
            enable_progress_bar=True,
            log_every_n_steps=4,
        )
    assert reads.found.keys() <= {4}, reads.found
