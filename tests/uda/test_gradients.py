"""The reach of each loss: the whole backbone of the student, its own head, nothing else."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import pipa
from pipa.batch import Batch, Labelled
from pipa.models.segmenter import Segmenter
from pipa.uda.pseudo import Pseudo
from pipa.uda.self_training import SelfTraining
from pipa.uda.teacher import Teacher
from pipa.uda.terms import (
    FeatureDistance,
    Given,
    MaskedConsistency,
    PairCrossEntropy,
    PatchTerm,
    PixelTerm,
)
from uda.steps import CLASSES, LABELS, Feed, batch_of, fit, small

NETWORKS = {"small": 32, "daformer_mit_b0": 64, "hrda_mit_b0": 128}
"""Sides of crops in which attention of every stage still has more than one key."""


def network(name: str) -> Segmenter:
    if name == "small":
        return small()
    torch.manual_seed(0)
    options = {"detail": 64} if name.startswith("hrda") else {}
    return pipa.create_segmenter(
        name, CLASSES, backbone={"drop_path": 0.0}, head={"width": 16}, **options
    )


def known(batch: Batch, seed: int = 0) -> Pseudo:
    """Pseudo-labels of random blocks and random confidence, of the target and of the pair."""
    generator = torch.Generator().manual_seed(seed)
    assert batch.target is not None
    b, _, h, w = batch.target.image.shape

    def one() -> Pseudo:
        cells = torch.randint(CLASSES, (b, h // 8, w // 8), generator=generator)
        label = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
        sure = torch.ones(b, h, w, dtype=torch.bool)
        return Pseudo(label, sure.float(), torch.rand(b, h, w, generator=generator), sure)

    whole = one()
    whole.pair = one(), one()
    return whole


def assert_all_reached(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        # A bias of all keys alike does not change a softmax: its gradient is 0 but for rounding.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def assert_untouched(module: nn.Module) -> None:
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("labelled_by_teacher", [True, False])
def test_the_patch_loss_alone_trains_the_whole_backbone(name, labelled_by_teacher):
    student, batch = network(name), batch_of(side=NETWORKS[name])
    teacher, term = Teacher(student), PatchTerm(threshold=0.0, width=16, dim=8, memory=30)
    term.prepare(student)
    pseudo = known(batch) if labelled_by_teacher else teacher.label(batch.target)
    loss = term(Given(student, batch, pseudo, torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss > 0
    assert_all_reached(student.backbone)
    assert_all_reached(term.head)
    assert_untouched(student.head)
    assert_untouched(teacher)
    assert not term.bank.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sampling", ["hard", "random"])
def test_the_pixel_loss_alone_trains_the_whole_backbone(name, sampling):
    student, batch = network(name), batch_of(side=NETWORKS[name])
    teacher, term = Teacher(student), PixelTerm(width=16, dim=8, sampling=sampling)
    term.prepare(student)
    prediction = student.analyse(batch.source.image)
    loss = term(prediction, batch.source, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss > 0
    assert_all_reached(student.backbone)
    assert_all_reached(term.head)
    assert_untouched(student.head)
    assert_untouched(teacher)


@pytest.mark.parametrize("term", [PixelTerm(width=16, dim=8), PatchTerm(threshold=0.0, width=16)])
def test_a_term_works_in_anyones_loop_without_preparation(term):
    student, batch = small(), batch_of()
    if isinstance(term, PixelTerm):
        loss = term(student.analyse(batch.source.image), batch.source)
    else:
        loss = term(Given(student, batch, known(batch)))
    loss.backward()
    assert_all_reached(student.backbone)
    assert_all_reached(term.head)
    assert {id(p) for p in term.parameters()} == {id(p) for p in term.head.parameters()}


def test_with_hrda_pixels_have_the_labels_of_the_detail():
    student, batch = network("hrda_mit_b0"), batch_of(side=128)
    student.generator = torch.Generator().manual_seed(3)
    prediction = student.analyse(batch.source.image)
    box = prediction.detail.box
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[*box] = True
    mixed = torch.randint(CLASSES, (2, 128, 128), generator=student.generator)
    term = PixelTerm(width=16, dim=8)

    same_in_the_box = term(prediction, Labelled(batch.source.image, mixed.where(~inside, 1)))
    assert same_in_the_box.item() == 0
    same_around_it = term(prediction, Labelled(batch.source.image, mixed.where(inside, 1)))
    assert same_around_it > 0


def test_the_feature_distance_moves_the_student_and_not_its_reference():
    student, batch = small(), batch_of()
    term = FeatureDistance(min_ratio=0.1)
    term.prepare(student)
    with torch.no_grad():
        for parameter in student.backbone.parameters():
            parameter.add_(0.01)
    term(student.analyse(batch.source.image), batch.source).backward()
    assert_all_reached(student.backbone)
    assert_untouched(term.encoder)
    assert not term.train().encoder.training


class Gradients(Callback):
    """The parameters that have a gradient when the optimiser steps."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.reached = {name for name, p in module.named_parameters() if p.grad is not None}
        self.zero = {
            n for n, p in module.named_parameters() if p.grad is not None and not p.grad.any()
        }
        held = [p for group in optimizer.param_groups for p in group["params"]]
        self.trained = {n for n, p in module.named_parameters() if any(p is q for q in held)}


def test_a_whole_step_reaches_student_and_heads_and_nobody_else():
    terms = [PixelTerm(width=16, dim=8), FeatureDistance(min_ratio=0.1)]
    module = SelfTraining(
        small(),
        LABELS,
        source_terms=terms,
        target_terms=[
            PatchTerm(threshold=0.0, width=16, dim=8),
            MaskedConsistency(block=8),
            PairCrossEntropy(),
        ],
        confidence=0.3,
    )
    seen = Gradients()
    fit(module, Feed([batch_of()]), callbacks=[seen])
    parts = ("student.", "terms.0.head.", "terms.2.head.")
    expected = {name for name, _ in module.named_parameters() if name.startswith(parts)}
    assert seen.reached == seen.trained == expected
    assert not seen.zero
    assert any(name.startswith("teacher.") for name, _ in module.named_parameters())
    assert any(name.startswith("terms.1.encoder.") for name, _ in module.named_parameters())
