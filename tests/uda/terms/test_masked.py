"""Masked consistency: the hidden pixels, and the teacher's labels."""

import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import Given, MaskedConsistency
from uda.steps import LABELS, batch_of, batches, fit, small, trained
from uda.terms.known import Window, flat

OPTIM = Optim(lr=1e-3, warm_up=0)


def test_hidden_blocks_are_the_mean_colour():
    """That is 0 for the network, as in MIC; hidden pixels make no difference."""
    batch, student = batch_of(), Window()
    pseudo = flat(torch.zeros(2, 32, 32, dtype=torch.long), 0.9)
    term = MaskedConsistency(block=8, ratio=0.5)
    loss = term(Given(student, batch, pseudo, torch.Generator().manual_seed(0)))
    loss.backward()
    assert student.scale.grad.isfinite()
    hidden = (student.seen == 0).all(dim=1)
    cells = F.avg_pool2d(hidden[:, None].float(), 8)
    assert set(cells.flatten().tolist()) == {0.0, 1.0}
    assert MaskedConsistency(block=8, ratio=0.0)(Given(student, batch, pseudo)) > 0
    MaskedConsistency(block=8, ratio=1.0)(Given(student, batch, pseudo))
    assert not student.seen.any()


def masked(**options) -> MaskedConsistency:
    return MaskedConsistency(block=8, **options)


def test_its_own_teacher_is_the_methods_if_both_are_alike():
    """Same student, same averages, same labels: with and without sharing, the same bits."""
    alike, other = {"momentum": 0.6, "confidence": 0.4}, {"momentum": 0.1, "confidence": 0.4}
    found = [
        trained(SelfTraining(small(), LABELS, optim=OPTIM, target_terms=[term], **alike))
        for term in (masked(), masked(teacher="own", **alike), masked(teacher="own", **other))
    ]
    shared, own, different = found
    names = [name for name in shared if name.startswith("student.")]
    assert all(torch.equal(shared[name], own[name]) for name in names)
    assert any(not torch.equal(shared[name], different[name]) for name in names)


def test_its_own_teacher_is_the_average_of_the_students_so_far():
    students = []

    class Path(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            students.append([p.detach().clone() for p in module.student.parameters()])

    term = masked(teacher="own", momentum=0.6, start=1)
    module = SourceOnly(small(), LABELS, optim=OPTIM, target_terms=[term])
    fit(module, batches(4), callbacks=[Path()])
    expected = students[1]  # copied when the term starts
    for count, student in enumerate(students[2:], start=1):
        keep = min(1 - 1 / (count + 1), 0.6)
        expected = [keep * t + (1 - keep) * s for t, s in zip(expected, student, strict=True)]
    teacher = term.own.teacher.network
    for mine, parameter in zip(expected, teacher.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter)
    assert not any(p.requires_grad for p in teacher.parameters())

    again = masked(teacher="own")
    again.prepare(small())
    again.load_state_dict(term.state_dict())
    assert again.own.steps == term.own.steps == 3


def test_a_shared_teacher_leaves_nothing_in_the_checkpoint():
    term = masked()
    term.prepare(small())
    assert not term.state_dict()
