"""The feature distance counts the classes that it is given."""

import torch

from pipa.uda.terms import FeatureDistance
from uda.steps import batch_of, small


def test_the_feature_distance_counts_chosen_classes_alone():
    student, batch = small(), batch_of()
    terms = {c: FeatureDistance(classes=c, min_ratio=0.0) for c in ((0,), (1,), (2,), None)}
    for term in terms.values():
        term.prepare(student)
        assert term(student.analyse(batch.source.image), batch.source).item() == 0
    with torch.no_grad():
        for parameter in student.backbone.parameters():
            parameter.mul_(1.1)
    batch.source.label[:] = 1
    found = {
        c: term(student.analyse(batch.source.image), batch.source) for c, term in terms.items()
    }
    assert found[(1,)] == found[None] > 0
    assert found[(0,)].item() == found[(2,)].item() == 0
    found[(0,)].backward()
    assert all(p.grad is None or not p.grad.any() for p in student.parameters())
