"""The feature distance counts the classes that it is given."""

import torch
from transformers import Dinov2Backbone, Dinov2Config

from pipa.batch import Labelled
from pipa.models.auto import Plain
from pipa.models.encoder_decoder import EncoderDecoder
from pipa.models.fpn import FPNHead
from pipa.uda.optim import Optim, parameter_groups
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


def test_crops_need_not_be_a_multiple_of_the_stride():
    student, batch, term = small(), batch_of(side=128), FeatureDistance(min_ratio=0.0)
    source = Labelled(batch.source.image[..., :100], batch.source.label[..., :100])
    term.prepare(student)
    prediction = student.analyse(source.image)
    assert prediction.context.deepest.shape[-2:] == (4, 4)
    assert term(prediction, source).item() == 0


def plain_student():
    """A plain vision transformer with a pyramid, and a head on it."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=16, image_size=32
    )
    backbone = Plain(Dinov2Backbone(config), width=8)
    return EncoderDecoder(backbone, FPNHead(backbone.channels, 3, width=8))


def test_with_a_pyramid_it_compares_the_maps_of_the_encoder_itself():
    """The pyramid starts at random and is to learn: nothing keeps it where it was."""
    student, batch, term = plain_student(), batch_of(), FeatureDistance(min_ratio=0.0)
    term.prepare(student)
    with torch.no_grad():
        for parameter in student.backbone.pyramid.parameters():
            parameter.add_(1.0)
    assert term(student.analyse(batch.source.image), batch.source).item() == 0
    with torch.no_grad():
        for parameter in student.backbone.encoder.parameters():
            parameter.add_(0.1)
    assert term(student.analyse(batch.source.image), batch.source) > 0


def test_a_pyramid_learns_at_the_rate_of_heads():
    student = plain_student()
    groups = parameter_groups(student, Optim(lr=1e-4, head=10.0))
    rates = {p: group["lr"] for group in groups for p in group["params"]}
    assert {rates[p] for p in student.backbone.pyramid.parameters()} == {1e-4 * 10.0}
    encoder = {rates[p] for p in student.backbone.encoder.parameters() if p.requires_grad}
    assert encoder == {1e-4}
