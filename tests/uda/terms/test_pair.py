"""The pair: one pass of the student for all terms that look at it; crops of the target's crop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.batch import Batch, PairPlace, Unlabelled
from pipa.losses.patch_contrast import patch_contrast, place_loss
from pipa.models.segmenter import Prediction
from pipa.uda.augment import jitter_and_blur
from pipa.uda.pseudo import Pseudo
from pipa.uda.self_training import SelfTraining
from pipa.uda.teacher import Teacher
from pipa.uda.terms import PairCrossEntropy, PatchTerm
from pipa.uda.terms.base import target_losses
from uda.steps import LABELS, Feed, batch_of, fit, small
from uda.terms.known import Two


class Counted(Two):
    """A network that counts its passes."""

    passes = 0

    def analyse(self, image: torch.Tensor) -> Prediction:
        self.passes += 1
        self.image = image
        return super().analyse(image)


def losses_of(*terms) -> tuple[dict[str, float], Counted]:
    """The losses of one step, and the student."""
    student, batch = Counted(), batch_of()
    pseudo = Teacher(student).label(batch.target, batch.pair)
    student.passes = 0
    found: dict[str, float] = {}

    def draws(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(len(name))

    for group in target_losses(student, batch, pseudo, terms, 0, draws):
        torch.stack(list(group.values())).sum().backward()
        found |= {name: loss.item() for name, loss in group.items()}
    return found, student


def patch() -> PatchTerm:
    term = PatchTerm(threshold=0.0, width=16, dim=8)
    torch.manual_seed(1)
    return term


def test_terms_of_the_pair_share_one_pass_and_change_nothing_of_each_other():
    both, student = losses_of(patch(), PairCrossEntropy())
    assert student.passes == 1
    alone = losses_of(patch())[0] | losses_of(PairCrossEntropy())[0]
    assert both == pytest.approx(alone, rel=1e-6)
    assert set(both) == {"patch", "pair_cross_entropy"}


def test_the_shared_pass_sees_each_crop_in_colours_of_its_own():
    pair = batch_of().pair
    crops = torch.cat([pair.first.image, pair.second.image])
    seen = losses_of(patch(), PairCrossEntropy())[1].image
    assert torch.equal(seen, jitter_and_blur(crops, torch.Generator().manual_seed(len("pair"))))
    assert not torch.equal(seen, crops)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_pair_is_two_crops_of_the_target_and_its_labels_are_the_targets(data):
    h, w = 16, 24
    size = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    corners = [
        [data.draw(st.integers(0, h - size[0])), data.draw(st.integers(0, w - size[1]))]
        for _ in range(2)
    ]
    flips = [data.draw(st.booleans()), data.draw(st.booleans())]
    place = torch.arange(h * w).view(1, h, w)
    target = Unlabelled(place[:, None].expand(1, 3, h, w).float(), place % 3 > 0)
    pair = PairPlace(torch.tensor([corners]), torch.tensor([flips])).of(target, size)
    assert pair.shift.tolist() == [[corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]]]
    for i, crop in enumerate((pair.first, pair.second)):
        (y, x), (rows, columns) = corners[i], size
        wanted = place[:, y : y + rows, x : x + columns]
        wanted = wanted.flip(2) if flips[i] else wanted
        assert torch.equal(crop.image[:, 1], wanted.float())
        assert torch.equal(crop.valid, wanted % 3 > 0)
        assert torch.equal(pair.cut(place)[i], wanted)


class Once(Two):
    """A teacher's network that may look at the target only."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-2:] == (32, 32)
        return super().forward(image)


def test_the_teacher_labels_a_pair_in_the_target_without_a_further_pass():
    target = batch_of().target
    corner = torch.tensor([[[0, 4], [8, 0]], [[8, 8], [0, 0]]])
    flipped = torch.tensor([[False, True], [True, False]])
    pair = PairPlace(corner, flipped).of(target, (24, 24))
    pseudo = Teacher(Once()).label(target, pair)
    for name in ("label", "weight", "confidence"):
        whole = getattr(pseudo, name)
        for found, wanted in zip(pseudo.pair, pair.cut(whole), strict=True):
            assert torch.equal(getattr(found, name), wanted)


def test_crops_that_share_their_labels_learn_from_each_other():
    generator = torch.Generator().manual_seed(0)
    first, second, bank = (
        torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
        for n in (6, 6, 9)
    )
    label, bank_label = torch.arange(6) % 3, torch.arange(9) % 3
    confidence = torch.tensor([0.95, 0.5, 0.99, 1.0, 0.0, 0.91])
    first.requires_grad_()
    second.requires_grad_()
    found = patch_contrast(
        first, second, bank, label, label, bank_label, confidence, confidence, mutual=True
    )
    sure = confidence > 0.9
    wanted = sum(
        place_loss(query, goal, bank, label, bank_label, 0.1)[sure].mean()
        for query, goal in ((first, second), (second, first))
    )
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    found.backward()
    for rows in (first, second):
        assert torch.equal(rows.grad.abs().sum(dim=1) > 0, sure)
    none = patch_contrast(first, second, bank, label, label, bank_label, confidence, confidence)
    assert none.item() == 0


def test_a_run_with_a_pair_in_the_target_trains(tmp_path):
    def with_pair(seed: int) -> Batch:
        batch = batch_of(seed)
        corner = torch.tensor([[[0, 0], [8, 8]]] * 2)
        place = PairPlace(corner, torch.tensor([[False, True]] * 2))
        return batch._replace(pair=place.of(batch.target, (24, 24)))

    term = PatchTerm(threshold=0.0, width=16, dim=8)
    method = SelfTraining(small(), LABELS, target_terms=[term, PairCrossEntropy()])
    fit(method, Feed([with_pair(0), with_pair(1)]))
    assert method.losses["patch"] > 0
    assert isinstance(method.last_step.pseudo, Pseudo)
