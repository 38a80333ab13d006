"""The patch term: which places of a pair match, which take part, and the rows of the bank."""

import pytest
import torch

from pipa.batch import Batch
from pipa.uda.augment import jitter_and_blur
from pipa.uda.terms import Given, PatchTerm
from pipa.uda.terms.patch import pick
from uda.steps import batch_of, small
from uda.terms.known import Direction, Window, flat, labelled_pair, pair_batch, plain


def patch_term(**options) -> PatchTerm:
    """A patch term that contrasts what it sees, without colours and without chance in the loss."""
    term = PatchTerm(dim=3, memory=0, temperature=0.01, **options)
    term.head = Direction()
    return term


@pytest.mark.parametrize("shift", [(8, 0), (-8, 16), (-24, -8)])
@pytest.mark.parametrize(
    ("size", "flipped"),
    [
        ((48, 48), (False, False)),
        ((48, 48), (True, False)),
        ((48, 48), (True, True)),
        ((50, 50), (False, False)),
        ((40, 64), (False, True)),
        ((64, 40), (True, False)),
    ],
)
def test_the_same_place_of_both_crops_is_the_positive(size, shift, flipped):
    """Its similarity is then 1, the maximum, and the loss at a low temperature is 0."""
    batch = pair_batch(size, shift, flipped)
    here = patch_term()(plain(Window(), batch, labelled_pair(batch)))
    assert here.item() == pytest.approx(0, abs=0.1)
    batch.pair.shift.add_(8)
    elsewhere = patch_term()(plain(Window(), batch, labelled_pair(batch)))
    assert elsewhere > 5


@pytest.mark.parametrize("which", ["first", "second"])
def test_places_that_are_not_valid_never_take_part(which):
    """The pixels and labels of such a place make no difference."""
    losses = []
    for fill, label in ((0.0, 0), (1.0, 2)):
        batch = pair_batch((48, 48), (8, 8), (False, True))
        pseudo = labelled_pair(batch)
        crop = getattr(batch.pair, which)
        crop.valid[:, 12:36, 8:40] = False
        crop.image[:, :, 12:36, 8:40] = fill
        pseudo.pair[which == "second"].label[:, 12:36, 8:40] = label
        pseudo.pair[which == "second"].confidence[:, 12:36, 8:40] = 1.0 - fill / 2
        batch.pair.shift.add_(8)  # other places, so that there is a loss
        losses.append(patch_term()(plain(Window(), batch, pseudo)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] > 5


def test_only_confident_places_learn():
    batch, student = pair_batch((48, 48), (8, 0), (False, False)), Window()
    batch.pair.shift.add_(8)
    term = patch_term(threshold=0.9)
    assert term(plain(student, batch, labelled_pair(batch, 0.95, 0.99))) > 0
    assert term(plain(student, batch, labelled_pair(batch, 0.5, 0.99))) > 0
    assert term(plain(student, batch, labelled_pair(batch, 0.85, 0.89))).item() == 0


def test_the_student_sees_the_pair_in_colours_of_each_crop():
    batch, student = pair_batch((48, 48), (8, 0), (False, False)), Window()
    term = PatchTerm(dim=3)
    term.head = Direction()
    term(Given(student, batch, labelled_pair(batch), torch.Generator().manual_seed(1)))
    given = torch.cat([batch.pair.first.image, batch.pair.second.image])
    coloured = jitter_and_blur(given, torch.Generator().manual_seed(1))
    assert ((coloured - given).abs().amax(dim=(1, 2, 3)) > 0.05).all()
    torch.testing.assert_close(student.seen, student.normalise(coloured))


def nothing_valid(batch: Batch) -> None:
    batch.pair.first.valid[:] = False
    batch.pair.second.valid[:] = False


def no_overlap(batch: Batch) -> None:
    batch.pair.shift[:] = 32


@pytest.mark.parametrize("spoil", [nothing_valid, no_overlap])
def test_no_place_to_contrast_is_zero_with_a_finite_gradient(spoil):
    student, batch = small(), batch_of()
    spoil(batch)
    term = PatchTerm(threshold=0.0, width=16, dim=8)
    whole = flat(torch.zeros(2, 32, 32, dtype=torch.long), 0.5)
    loss = term(Given(student, batch, whole))
    loss.backward()
    assert loss.item() == 0
    for parameter in [*student.backbone.parameters(), *term.head.parameters()]:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_the_bank_is_a_ring_of_the_last_three_steps():
    term = PatchTerm(memory=9, queries=2, dim=4)
    for step in range(1, 6):
        term._update_bank(torch.full((5, 4), float(step)), torch.full((5,), step))
        kept = [s for s in range(step, max(0, step - 3), -1) for _ in range(3)]
        assert term.bank_label.tolist() == kept + [255] * (9 - len(kept))
        assert term.bank[:, 0].tolist() == kept + [0] * (9 - len(kept))
    term._update_bank(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))  # fewer than a third
    assert term.bank_label.tolist() == [0, 0, 5, 5, 5, 4, 4, 4, 3]
    assert {"bank", "bank_label"} <= set(term.state_dict())


def test_the_bank_is_of_valid_places_of_this_step():
    student, batch = small(), batch_of()
    batch.pair.first.valid[:] = False
    term = PatchTerm(threshold=0.0, width=16, dim=8, memory=60)
    label = torch.full((2, 32, 32), 2)
    whole = flat(label, 0.5)
    whole.pair = flat(label, 0.5), flat(label - 1, 0.6)
    term(Given(student, batch, whole))
    assert set(term.bank_label.tolist()) == {1, 255}  # the second crop's; and what is free yet
    assert (term.bank_label[:20] == 1).all()
    assert torch.allclose(term.bank[:20].norm(dim=1), torch.ones(20))


def test_the_bank_gives_negatives():
    batch = pair_batch((48, 48), (8, 0), (False, False))
    term = PatchTerm(dim=3, memory=30, temperature=0.1)
    term.head = Direction()
    pseudo = labelled_pair(batch)
    for crop in pseudo.pair:
        crop.label[:] = 0  # one class only: nothing to contrast within the step
    assert term(plain(Window(), batch, pseudo)).item() == 0
    term.bank_label[:] = 1
    assert term(plain(Window(), batch, pseudo)) > 0


def test_wanted_rows_come_first():
    generator = torch.Generator().manual_seed(0)
    wanted = torch.arange(100) % 10 == 0
    few = pick(wanted, 4, generator)
    assert wanted[few].all()
    many = pick(wanted, 50, generator)
    assert wanted[many[:10]].all()
    assert len(many.unique()) == 50
    assert len(pick(wanted, 500, generator)) == 100
    drawn = torch.stack([pick(wanted, 5, generator) for _ in range(200)]).flatten()
    assert (torch.bincount(drawn, minlength=100)[wanted] > 60).all()
