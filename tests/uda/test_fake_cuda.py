"""Steps of every method and term on a CUDA device that computes nothing: see `fake_cuda`.

They fail on an operation that mixes devices, and on a read of a value, for which a real step would
wait for the device.
"""

import pytest
import torch
from fake_cuda import COMPILER, FakeRun, fake_cuda, on_cuda
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorDeviceMismatchError,
)

import pipa
from pipa.models.segmenter import Segmenter
from pipa.run.recipes import RECIPES, MethodOptions, build_method, chosen_terms
from pipa.uda.optim import Optim
from pipa.uda.terms import (
    TERMS,
    FeatureDistance,
    MaskedConsistency,
    PatchTerm,
    PixelTerm,
    SourceTerm,
    Term,
    default_terms,
)
from uda.steps import LABELS, batch_of, small

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the fake device needs a C++ compiler")


def run(options: MethodOptions, student: Segmenter | None = None, **sections: Term) -> None:
    """Two steps: the second has the optimiser's state, banks and averages of the first."""
    sections = default_terms() | {"feature_distance": FeatureDistance(classes=[0, 1])} | sections
    terms = chosen_terms(options, sections)
    network = small() if student is None else student
    method = build_method(options, network, LABELS, terms, optim=Optim(), pretrained=True)
    with fake_cuda():
        step, batch = FakeRun(method), on_cuda(batch_of(side=64))
        step(batch)
        step(batch)
    assert method.losses.keys() >= {"source"} | {term.name for term in terms}
    assert all(loss.device.type == "cuda" for loss in method.losses.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_every_method_waits_for_nothing(name):
    run(MethodOptions(name))


@pytest.mark.parametrize(("style", "mix"), [("fda", "rectangle"), ("colour", "small")])
def test_every_term_with_all_that_is_off_by_default(style, mix):
    run(
        MethodOptions(
            "pipa",
            terms=list(TERMS),
            pseudo_weight="balanced",
            align_shares=0.5,
            marginal=True,
            mix=mix,
            style=style,
            jitter_source=True,
            one_pass=mix == "small",
        ),
        pixel=PixelTerm(memory=5, similarity=0.1, maps="decoder", images="mixed"),
        patch=PatchTerm(balanced=True, maps="decoder", per_class=True, sure_negatives=True),
        masked=MaskedConsistency(teacher="own"),
    )


MIT = {"settings": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}}


def test_a_step_of_hrda_waits_for_nothing():
    options = {"backbone": MIT, "head": {"width": 16}, "detail": 32}
    student = pipa.create_segmenter("hrda_mit_b0", LABELS.num_classes, **options)
    run(MethodOptions("daformer"), student)


class Reads(SourceTerm):
    """A term that does what no term may do."""

    name = "reads"

    def __init__(self) -> None:
        super().__init__(1.0)

    def forward(self, prediction, source, generator=None):
        return prediction.outputs[0].logits.sum() * float(source.label.max())


class Mixes(Reads):
    """A term that leaves a tensor on the CPU."""

    name = "mixes"

    def forward(self, prediction, source, generator=None):
        return (prediction.outputs[0].logits * torch.ones(LABELS.num_classes, 1, 1)).sum()


@pytest.mark.parametrize(
    ("term", "error"),
    [(Reads, DataDependentOutputException), (Mixes, FakeTensorDeviceMismatchError)],
)
def test_a_term_that_reads_a_value_or_mixes_devices_fails(term, error):
    with pytest.raises(error):
        run(MethodOptions("source_only", terms=[term()]))
