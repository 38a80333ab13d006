"""The banks of the terms: equally many rows of every class, and they go on after resuming."""

import warnings
from dataclasses import dataclass
from itertools import count

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipa.batch import Labelled
from pipa.losses.pixel_contrast import contrast_anchors
from pipa.run.engine import hush_lightning
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.teacher import Teacher
from pipa.uda.terms import Given, PatchTerm, PixelTerm
from pipa.uda.terms.patch import pick_evenly
from pipa.uda.terms.projection import at_centres
from uda.steps import CLASSES, LABELS, batch_of, fit, small
from uda.terms.known import everywhere, flat, plain


def pixel_term(student, **options):
    torch.manual_seed(1)
    term = PixelTerm(width=16, dim=8, **options)
    term.prepare(student)
    return term


def pixel_loss(term, student, source, seed=0):
    return term(student.analyse(source.image), source, torch.Generator().manual_seed(seed))


def test_the_bank_holds_the_same_number_of_every_class_and_the_oldest_leave():
    """Class 2 is rare: what it gave remains while the others' rows are replaced."""
    term = PixelTerm(dim=4, memory=4)
    term.prepare(small())
    assert term.bank.shape == (4 * CLASSES, 4)
    assert set(term.bank_label.tolist()) == {255}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        label = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 255, 255])
        if step == 2:
            label[-1] = 2
        term._update_bank(torch.full((11, 4), float(step)), label, CLASSES, generator)
    assert term.bank_label.tolist() == [0] * 4 + [1] * 4 + [2] + [255] * 3
    assert term.bank[:9, 0].tolist() == [5, 5, 5, 4] + [5] * 4 + [2]


def test_of_too_many_rows_of_one_step_any_are_kept():
    """Not the first image's: anchors come sorted by image."""
    term = PixelTerm(dim=1, memory=10)
    term.prepare(small())
    rows = torch.arange(200.0)[:, None]
    term._update_bank(rows, torch.zeros(200, dtype=torch.long), CLASSES, torch.Generator())
    kept = term.bank[:10, 0]
    assert len(kept.unique()) == 10
    assert kept.max() > 100
    assert kept.min() < 100


def test_what_is_kept_are_the_anchors_of_the_step_before():
    student, source = small(), batch_of().source
    term = pixel_term(student, memory=1024)
    features = student.analyse(source.image).detail.features
    rows = term.head(features, everywhere(features))
    pixel_loss(term, student, source)
    assert not term.bank.requires_grad
    label = at_centres(source.label, features[0].shape[-2:]).flatten()
    filled = term.bank_label != 255
    for c in range(CLASSES):
        mine = term.bank[filled & (term.bank_label == c)]
        apart = (mine[:, None] - rows[label == c]).abs().amax(dim=2).amin(dim=1)
        assert len(mine) == (label == c).sum()  # fewer than anchors may be
        assert apart.max() < 1e-6


def test_the_second_step_is_contrasted_with_the_first():
    student, source = small(), batch_of().source
    with_bank, without = (pixel_term(student, memory=m) for m in (50, 0))
    ones = Labelled(source.image, torch.ones_like(source.label))
    for term in (with_bank, without):
        assert pixel_loss(term, student, ones).item() == 0  # one class only
    pixel_loss(with_bank, student, source)
    pixel_loss(without, student, source)
    bank, bank_label = with_bank.bank.clone(), with_bank.bank_label.clone()
    assert pixel_loss(without, student, ones).item() == 0
    loss = pixel_loss(with_bank, student, ones)
    features = student.analyse(source.image).detail.features
    rows = with_bank.head(features, everywhere(features))  # all are anchors, but 100 per image
    label = torch.ones(len(rows), dtype=torch.long)
    assert len(rows) <= 200
    expected = contrast_anchors(rows, label, label == 1, bank=bank, bank_label=bank_label)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss > 0


def test_a_bank_lets_every_step_train_the_whole_backbone():
    student, term = small(), PixelTerm(width=16, dim=8, memory=20)  # and without `prepare`
    for step in range(3):
        student.zero_grad()
        loss = pixel_loss(term, student, batch_of(step).source)
        loss.backward()
        for parameter in [*student.backbone.parameters(), *term.head.parameters()]:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()
    assert {id(p) for p in term.parameters()} == {id(p) for p in term.head.parameters()}
    assert {"bank", "bank_label"} <= set(term.state_dict())


def method():
    return SelfTraining(
        small(),
        LABELS,
        optim=Optim(lr=1e-3, warm_up=0, power=0.0),  # the same rate, however long the run
        source_terms=[PixelTerm(width=16, dim=8, memory=12)],
        target_terms=[PatchTerm(threshold=0.0, width=16, dim=8, memory=60, balanced=True)],
        confidence=0.3,
    )


@dataclass
class Endless:
    """Batches from a step on, as `UDAData` gives them."""

    start: int

    def __iter__(self):
        return map(batch_of, count(self.start))


def test_a_resumed_training_is_exactly_the_one_that_went_on(tmp_path):
    whole, half, rest = method(), method(), method()
    fit(whole, Endless(0), 4)
    fit(half, Endless(0), 2).save_checkpoint(tmp_path / "half.ckpt")
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        hush_lightning()
        warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
        trainer = L.Trainer(max_steps=4, **options)
        trainer.fit(rest, Endless(2), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert {f"terms.{i}.{b}" for i in (0, 1) for b in ("bank", "bank_label")} <= set(
        whole.state_dict()
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name
    for i in (0, 1):
        assert not torch.equal(half.terms[i].bank, whole.terms[i].bank)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    void=st.integers(0, 4),
    wanted=st.integers(1, 40),
    seed=st.integers(0, 2**20),
)
def test_places_are_picked_evenly_over_the_classes(sizes, void, wanted, seed):
    label = torch.tensor([c for c, n in enumerate(sizes) for _ in range(n)] + [255] * void)
    generator = torch.Generator().manual_seed(seed)
    label = label[torch.randperm(len(label), generator=generator)].long()
    chosen = pick_evenly(label, wanted, generator)
    assert len(chosen) == len(chosen.unique()) == min(wanted, len(label))
    have = [int((label[chosen] == c).sum()) for c in range(len(sizes))]
    most = max(have)
    assert all(n >= most - 1 or n == size for n, size in zip(have, sizes, strict=True))
    assert int((label[chosen] == 255).sum()) == max(0, min(wanted, len(label)) - sum(sizes))


def test_within_a_class_any_place_is_picked():
    label = (torch.arange(100) >= 90).long()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([pick_evenly(label, 10, generator) for _ in range(200)]).flatten()
    times = torch.bincount(drawn, minlength=100)
    assert times[90:].min() > 60  # 5 of 10, 200 times
    assert times[:90].min() > 0


def unbalanced(batch):
    """Pseudo-labels of both crops: class 1 on a 64th of the places, else class 0."""

    def one(sure):
        label = torch.zeros(2, 32, 32, dtype=torch.long)
        label[:, 8:12, 8:12] = 1
        return flat(label, sure)

    whole = one(0.5)
    whole.pair = one(0.95), one(0.99)
    return whole


def test_a_balanced_bank_has_as_much_of_each_pseudo_class():
    student, batch = small(), batch_of()
    batch.pair.second.valid[1] = False
    counts = {}
    for balanced in (False, True):
        term = PatchTerm(width=16, dim=8, memory=12, balanced=balanced, queries=40)
        term.prepare(student)
        for seed in range(3):
            term(plain(student, batch, unbalanced(batch), torch.Generator().manual_seed(seed)))
        counts[balanced] = torch.bincount(term.bank_label, minlength=256)[[0, 1, 255]].tolist()
        assert torch.allclose(term.bank.norm(dim=1), torch.ones(12))
        assert not term.bank.requires_grad
    assert counts[True] == [12 - 3 * 2, 3 * 2, 0]
    assert counts[False][1] < 3


def test_a_balanced_bank_changes_no_loss_before_it_holds_a_row():
    student, batch = small(), batch_of()
    losses = []
    for balanced in (False, True):
        torch.manual_seed(1)
        term = PatchTerm(width=16, dim=8, memory=30, balanced=balanced)
        term.prepare(student)
        steps = [
            term(
                plain(student, batch, unbalanced(batch), torch.Generator().manual_seed(seed))
            ).item()
            for seed in range(2)
        ]
        losses.append(steps)
    assert losses[0][0] == losses[1][0] > 0
    assert losses[0][1] != losses[1][1]


def test_without_a_teacher_the_students_decoder_labels_the_pair():
    student, batch = small(), batch_of()
    losses = []
    for pseudo in (None, Teacher(student).label(batch.target)):
        torch.manual_seed(1)
        term = PatchTerm(threshold=0.0, width=16, dim=8)
        term.prepare(student)
        losses.append(term(Given(student, batch, pseudo, torch.Generator().manual_seed(0))).item())
    assert losses[0] == losses[1] > 0


def test_nothing_waits_for_the_device():
    """Tensors without values stop whatever reads one: `.item()`, `if`, `nonzero`."""
    student, batch = small(), batch_of()
    pixels: list[nn.Module] = [PixelTerm(memory=5), PixelTerm(memory=5, similarity=0.1)]
    patch = PatchTerm(balanced=True)
    for term in (*pixels, patch):
        term.prepare(student)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for _ in range(2):
            for term in pixels:
                term(student.analyse(batch.source.image), batch.source).backward()
            patch(plain(student, batch)).backward()
