"""Training without a teacher: the terms' effect, and terms that are refused."""

import pytest
import torch

from pipa.batch import Batch
from pipa.errors import PipaError
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import (
    EntropyTerm,
    FeatureDistance,
    MaskedConsistency,
    PairCrossEntropy,
    PatchTerm,
    PixelTerm,
)
from uda.steps import LABELS, Feed, batch_of, fit, small, trained


def method(**options) -> SourceOnly:
    return SourceOnly(small(), LABELS, **({"optim": Optim(lr=1e-3, warm_up=0)} | options))


TERMS = {
    "minent": lambda: {"target_terms": [EntropyTerm(weight=0.1)]},
    "mic": lambda: {"target_terms": [MaskedConsistency(block=8, teacher="own", confidence=0.3)]},
    "pipa": lambda: {
        "source_terms": [PixelTerm(width=16, dim=8), FeatureDistance(min_ratio=0.1)],
        "target_terms": [PatchTerm(threshold=0.3, width=16, dim=8, memory=30)],
    },
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", TERMS)
def test_five_steps(name, precision):
    module = method(jitter_source=True, **TERMS[name]())
    terms = [*module.source_terms, *module.target_terms]
    before = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    after = trained(module, 5, precision=precision)
    for key, tensor in after.items():
        assert tensor.isfinite().all(), key
    for key, tensor in before.items():
        assert not torch.equal(tensor, after[key]), key
    assert set(module.trainer.callback_metrics) == {
        "loss/source",
        *(f"loss/{term.name}" for term in terms),
    }
    alone = trained(method(jitter_source=True), 5, precision=precision)
    assert any(not torch.equal(tensor, after[key]) for key, tensor in alone.items())
    assert module.last_step.pseudo is None


def test_before_the_start_the_source_trains_alone():
    module = method(target_terms=[EntropyTerm()], start=3)
    found, alone = trained(module), trained(method())
    for name, tensor in alone.items():
        assert torch.equal(tensor, found[name]), name
    assert set(module.trainer.callback_metrics) == {"loss/source"}


def test_without_a_target_the_student_learns_from_the_source():
    module = method(target_terms=[EntropyTerm()])
    fit(module, Feed([Batch(batch_of().source)]))
    assert set(module.trainer.callback_metrics) == {"loss/source"}


@pytest.mark.parametrize("term", [PairCrossEntropy, MaskedConsistency])
def test_a_term_that_needs_a_teacher_is_refused(term):
    with pytest.raises(PipaError, match=f"term {term.name}: learns from a teacher"):
        method(target_terms=[EntropyTerm(), term()])
    SelfTraining(small(), LABELS, target_terms=[term()])


def test_terms_of_one_name_are_refused():
    with pytest.raises(PipaError, match="entropy, entropy"):
        method(target_terms=[EntropyTerm(), EntropyTerm()])
