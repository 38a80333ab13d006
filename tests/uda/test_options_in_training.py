"""Options of a method and of its terms reach the step: its images, labels and losses."""

from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from pipa.batch import Batch, Box, Labelled
from pipa.losses.pixel_contrast import contrast_anchors
from pipa.models.segmenter import Output, Prediction, View
from pipa.run.recipes import MethodOptions, build_method
from pipa.uda.augment import jitter_and_blur
from pipa.uda.mixing import Mix, Mixed, mix_images
from pipa.uda.optim import Optim
from pipa.uda.pseudo import Pseudo
from pipa.uda.self_training import SelfTraining
from pipa.uda.teacher import Teacher
from pipa.uda.terms import PatchTerm, PixelTerm
from uda.steps import CLASSES, LABELS, Feed, batch_of, fit, small
from uda.terms.known import Direction, Window, flat, pair_batch, plain


def dacs(**options: Any) -> SelfTraining:
    """A method with a teacher and without terms."""
    asked = MethodOptions(name="dacs", **options)
    method = build_method(asked, small(), LABELS, [], optim=Optim())
    assert isinstance(method, SelfTraining)
    return method


def step_of(method: SelfTraining, batch: Batch) -> tuple[Pseudo, Mixed]:
    """The pseudo-labels and the mixed images of one step."""
    fit(method, Feed([batch]))
    last = method.last_step
    assert last is not None
    assert last.pseudo is not None
    assert last.mixed is not None
    return last.pseudo, last.mixed


def test_a_step_pastes_what_the_option_says() -> None:
    batch, images = batch_of(b=8), []
    assert batch.target is not None
    for mix in get_args(Mix):
        method = dacs(mix=mix)
        draws = method.step_generator("mixed")  # of the first step
        pseudo, found = step_of(method, batch)
        expected = mix_images(batch.source, batch.target, pseudo, draws, mix=mix)
        assert torch.equal(found.label, expected.label)
        assert torch.equal(found.weight, expected.weight)
        assert torch.equal(found.image, jitter_and_blur(expected.image, draws))
        images.append(expected.image)
    assert not any(torch.equal(one, other) for one, other in combinations(images, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 0.4},
        {"confidence": 0.4, "pseudo_weight": "confidence"},
        {"pseudo_weight": "balanced"},
        {"align_shares": 0.5},
        {"marginal": True},
    ],
    ids=lambda options: "_".join(options),
)
def test_a_step_labels_the_target_as_the_options_say(options: dict[str, Any]) -> None:
    """Like a teacher with these options that has seen the labels of this step's source."""
    batch = batch_of()
    source, target, _ = batch
    assert target is not None
    pseudo, _ = step_of(dacs(**options), batch)

    def labelled(**given: Any) -> Pseudo:
        teacher = Teacher(small(), **given)
        teacher.observe(source.label)
        return teacher.label(target)

    assert same(pseudo, labelled(**options))
    assert not same(pseudo, labelled())


def same(one: Pseudo, other: Pseudo) -> bool:
    """Whether two teachers say the same."""
    names = [name for name, value in vars(one).items() if isinstance(value, Tensor)]
    if names != [name for name, value in vars(other).items() if isinstance(value, Tensor)]:
        return False
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_the_teacher_counts_the_classes_of_the_source_that_a_step_sees() -> None:
    method, batch = dacs(align_shares=0.5), batch_of()
    step_of(method, batch)
    counts = [(batch.source.label == k).sum().item() for k in range(CLASSES)]  # 255 is no class
    alignment = method.teacher.alignment
    assert alignment is not None
    seen = alignment.get_buffer("source")
    torch.testing.assert_close(seen / seen.sum(), torch.tensor(counts) / sum(counts))


def test_the_patch_term_lets_the_crop_that_is_asked_for_choose_what_repels() -> None:
    """Only the second crop is sure, so only its cells repel: the first one's labels ask, or not."""
    batch = pair_batch((48, 48), (0, 0), (False, False))
    assert batch.pair is not None
    red, green = ((batch.pair.first.image[:, i] > 0.5).long() for i in (0, 1))

    def loss(first: Tensor, second: Tensor, **options: Any) -> float:
        pseudo = flat(batch.source.label, 0.5)
        pseudo.pair = flat(first, 0.8), flat(second, 0.99)
        term = PatchTerm(dim=3, memory=0, sure_negatives=True, **options)
        term.head = Direction()  # type: ignore[assignment]  # in place of a projection
        found: Tensor = term(plain(Window(), batch, pseudo, torch.Generator().manual_seed(0)))
        return found.item()

    assert loss(red, green) == loss(red, green, negatives_of="learner")
    surer = loss(red, green, negatives_of="surer")
    assert surer == loss(green, green)
    assert surer != pytest.approx(loss(red, green), rel=0.01)


@pytest.mark.parametrize("similarity", [0.1, 0.5])
def test_the_pixel_term_contrasts_the_share_that_is_asked_for(similarity: float) -> None:
    torch.manual_seed(0)
    view = View([torch.rand(1, 3, 8, 8)], Box(slice(0, 32), slice(0, 32)))
    prediction = Prediction([Output(torch.randn(1, CLASSES, 8, 8), view.box, 1.0)], view, view)
    cells = torch.arange(64).view(1, 8, 8) % CLASSES
    label = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
    term = PixelTerm(similarity=similarity)  # every cell is an anchor: fewer than 100 of a class
    head = Direction()
    term.head = head  # type: ignore[assignment]  # in place of a projection
    found = term(prediction, Labelled(torch.zeros(1, 3, 32, 32), label)).item()
    rows, every = head(view.features, torch.arange(64)), torch.ones(64, dtype=torch.bool)
    asked, whole = (
        contrast_anchors(rows, cells.flatten(), every, similarity=share).item()
        for share in (similarity, None)
    )
    assert found == pytest.approx(asked, rel=1e-5)
    assert found != pytest.approx(whole, rel=0.01)
