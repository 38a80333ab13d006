"""MinEnt's entropy of the student's predictions: its value by hand, and its effect."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipa.losses.entropy import entropy
from pipa.uda.optim import Optim
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import EntropyTerm, Given
from uda.steps import CLASSES, LABELS, Feed, batch_of, fit, small
from uda.terms.known import Two


def test_the_entropy_of_all_outputs_by_their_share():
    student, batch = Two(), batch_of()
    expected = 0.0
    for output, size in zip(student.analyse(batch.target.image).outputs, (32, 16), strict=True):
        logits = F.interpolate(output.logits, (size, size), mode="bilinear")
        log = logits.log_softmax(1)
        expected += output.weight * -(log.exp() * log).sum(1).mean() / math.log(CLASSES)
    found = EntropyTerm()(Given(student, batch))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert student.scale.grad < 0  # larger logits, less entropy
    student.scale.data.zero_()
    assert EntropyTerm()(Given(student, batch)).item() == pytest.approx(1)


def test_minent_lowers_the_entropy_of_the_target():
    def left(**terms) -> float:
        module = SourceOnly(small(), LABELS, optim=Optim(lr=1e-2, warm_up=0), **terms)
        fit(module, Feed([batch_of()] * 15))
        with torch.no_grad():
            return entropy(module.student(batch_of().target.image)).mean().item()

    assert left(target_terms=[EntropyTerm(weight=1.0)]) < 0.5 * left()
