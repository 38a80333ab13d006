"""Terms: their weight over time, what they leave out, and what happens where nothing is left."""

import pytest
import torch
from pipa.uda.pipa_terms import PatchTerm, PixelTerm, at_centres, pick
from steps import CLASSES, batch_of, small
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F

from pipa.batch import Batch, Box, CropPair, Labelled, Unlabelled
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.uda.mixing import mix_images
from pipa.uda.teacher import Pseudo, Teacher
from pipa.uda.terms import FeatureDistance, MaskedConsistency, ViewsTerm, supervised


class Window(Segmenter):
    """A network that only passes on what it sees: a pixel of every 4 x 4 is feature and logits."""

    def __init__(self) -> None:
        super().__init__(3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: Tensor | None = None

    def context(self, image: Tensor) -> View:
        self.seen = self.normalise(image)
        box = Box(slice(0, image.shape[2]), slice(0, image.shape[3]))
        return View([image[:, :, ::4, ::4] * self.scale], box)

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        return Prediction([Output(view.features[0], view.box, 1.0)], view, view)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.context(image).features[0], image.shape[-2:], mode="bilinear")


class Direction(nn.Module):
    """In place of a projection head: the first map's own direction."""

    def forward(self, features: list[Tensor]) -> Tensor:
        return F.normalize(features[0] - 0.5, dim=1)


def flat(b: int, side: int, label: Tensor, confidence: float) -> Pseudo:
    return Pseudo(label, torch.ones(b, side, side), torch.full((b, side, side), confidence))


def patch_term(**options) -> PatchTerm:
    """A patch term that contrasts what it sees, without colours and without chance in the loss."""
    term = PatchTerm(dim=3, jitter=False, memory=0, temperature=0.01, **options)
    term.head = Direction()
    return term


def views_of(side: int, shift: tuple[int, int], flipped: tuple[bool, bool], seed: int = 0) -> Batch:
    """Two crops of a picture whose 4 x 4 cells have colours of their own."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(1, 3, 40, 40, generator=generator)
    whole = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    corners = [(40, 40), (40 + shift[0], 40 + shift[1])]
    crops = [whole[:, :, y : y + side, x : x + side] for y, x in corners]
    crops = [c.flip(3) if f else c for c, f in zip(crops, flipped, strict=True)]
    first, second = (Unlabelled(c, torch.ones(1, side, side, dtype=torch.bool)) for c in crops)
    pair = CropPair(first, second, torch.tensor([shift]), torch.tensor([flipped]))
    source = Labelled(first.image, torch.zeros(1, side, side, dtype=torch.long))
    return Batch(source, first, pair)


def labelled_pair(batch: Batch, first: float = 0.95, second: float = 0.99) -> Pseudo:
    """Places are of class 1 where they are red; the second view is the surer one."""
    views = (batch.pair.first.image, first), (batch.pair.second.image, second)
    side = batch.pair.first.image.shape[-1]
    pair = [flat(1, side, (image[:, 0] > 0.5).long(), sure) for image, sure in views]
    whole = flat(1, side, torch.zeros(1, side, side, dtype=torch.long), 0.5)
    whole.pair = pair[0], pair[1]
    return whole


def test_the_weight_starts_late_and_warms_up():
    term = PatchTerm(weight=0.4, start=3, warm_up=4)
    expected = [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4]
    assert [term.weight_at(step) for step in range(8)] == pytest.approx(expected)
    assert [PixelTerm(weight=0.1).weight_at(step) for step in (0, 1, 9)] == [0.1] * 3
    assert PixelTerm(weight=0.1, start=5).weight_at(4) == 0


@pytest.mark.parametrize("shift", [(8, 0), (-8, 16), (-24, -8)])
@pytest.mark.parametrize(
    ("side", "flipped"),
    [(48, (False, False)), (48, (True, False)), (48, (True, True)), (50, (False, False))],
)
def test_the_same_place_of_both_views_is_the_positive(side, shift, flipped):
    """Then its similarity is 1, more than any other's, and the loss at a low temperature 0."""
    batch = views_of(side, shift, flipped)
    here = patch_term()(Window(), batch, labelled_pair(batch))
    assert here.item() == pytest.approx(0, abs=0.1)
    batch.pair.shift.add_(8)
    elsewhere = patch_term()(Window(), batch, labelled_pair(batch))
    assert elsewhere > 5


@pytest.mark.parametrize("which", ["first", "second"])
def test_places_that_are_not_valid_never_take_part(which):
    """What such a place shows and is labelled makes no difference."""
    losses = []
    for fill, label in ((0.0, 0), (1.0, 2)):
        batch = views_of(48, (8, 8), (False, True))
        pseudo = labelled_pair(batch)
        view = getattr(batch.pair, which)
        view.valid[:, 12:36, 8:40] = False
        view.image[:, :, 12:36, 8:40] = fill
        pseudo.pair[which == "second"].label[:, 12:36, 8:40] = label
        pseudo.pair[which == "second"].confidence[:, 12:36, 8:40] = 1.0 - fill / 2
        batch.pair.shift.add_(8)  # other places, so that there is a loss
        losses.append(patch_term()(Window(), batch, pseudo).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] > 5


def test_only_confident_places_learn():
    batch, student = views_of(48, (8, 0), (False, False)), Window()
    batch.pair.shift.add_(8)
    term = patch_term(threshold=0.9)
    assert term(student, batch, labelled_pair(batch, 0.95, 0.99)) > 0
    assert term(student, batch, labelled_pair(batch, 0.5, 0.99)) > 0
    assert term(student, batch, labelled_pair(batch, 0.85, 0.89)).item() == 0


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
    whole = flat(2, 32, torch.zeros(2, 32, 32, dtype=torch.long), 0.5)
    loss = term(student, batch, whole)
    loss.backward()
    assert loss.item() == 0
    for parameter in [*student.backbone.parameters(), *term.head.parameters()]:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


@pytest.mark.parametrize("label", [255, 1])
def test_no_two_classes_to_contrast_is_zero_with_a_finite_gradient(label):
    student, batch = small(), batch_of()
    source = Labelled(batch.source.image, torch.full((2, 32, 32), label))
    term = PixelTerm(width=16, dim=8)
    loss = term(student.analyse(source.image), source)
    loss.backward()
    assert loss.item() == 0
    for parameter in [*student.backbone.parameters(), *term.head.parameters()]:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_pixels_without_a_label_are_no_anchors():
    """What the network says of them gets no gradient."""
    view = View([torch.rand(1, 3, 8, 8, requires_grad=True)], Box(slice(0, 32), slice(0, 32)))
    logits = torch.randn(1, CLASSES, 8, 8)
    prediction = Prediction([Output(logits, view.box, 1.0)], view, view)
    label = torch.arange(8).view(1, 8, 1).expand(1, 8, 8) % 3
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2).clone()
    label[:, 8:20, 4:28] = 255
    term = PixelTerm()
    term.head = Direction()
    term(prediction, Labelled(torch.zeros(1, 3, 32, 32), label)).backward()
    touched = view.features[0].grad.abs().sum(1)[0] > 0
    assert torch.equal(touched, at_centres(label, (8, 8))[0] != 255)


def test_the_bank_is_a_ring_of_the_last_three_steps():
    term = PatchTerm(memory=9, queries=2, dim=4)
    for step in range(1, 6):
        term._remember(torch.full((5, 4), float(step)), torch.full((5,), step))
        kept = [s for s in range(step, max(0, step - 3), -1) for _ in range(3)]
        assert term.bank_label.tolist() == kept + [255] * (9 - len(kept))
        assert term.bank[:, 0].tolist() == kept + [0] * (9 - len(kept))
    term._remember(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))  # fewer than a third
    assert term.bank_label.tolist() == [0, 0, 5, 5, 5, 4, 4, 4, 3]
    assert {"bank", "bank_label"} <= set(term.state_dict())


def test_the_bank_is_of_valid_places_of_this_step():
    student, batch = small(), batch_of()
    batch.pair.first.valid[:] = False
    term = PatchTerm(threshold=0.0, width=16, dim=8, memory=60)
    label = torch.full((2, 32, 32), 2)
    whole = flat(2, 32, label, 0.5)
    whole.pair = flat(2, 32, label, 0.5), flat(2, 32, label - 1, 0.6)
    term(student, batch, whole)
    assert set(term.bank_label.tolist()) == {1, 255}  # the second view's; and what is free yet
    assert (term.bank_label[:20] == 1).all()
    assert torch.allclose(term.bank[:20].norm(dim=1), torch.ones(20))


def test_the_bank_gives_negatives():
    batch = views_of(48, (8, 0), (False, False))
    term = PatchTerm(dim=3, jitter=False, memory=30, temperature=0.1)
    term.head = Direction()
    pseudo = labelled_pair(batch)
    for view in pseudo.pair:
        view.label[:] = 0  # one class only: nothing to contrast within the step
    assert term(Window(), batch, pseudo).item() == 0
    term.bank_label[:] = 1
    assert term(Window(), batch, pseudo) > 0


def test_the_pixel_at_the_centre_of_each_cell():
    plane = torch.arange(16).view(1, 16, 1) * 100 + torch.arange(24)
    expected = torch.tensor([2, 6, 10, 14])[:, None] * 100 + torch.tensor([2, 6, 10, 14, 18, 22])
    assert torch.equal(at_centres(plane, (4, 6))[0], expected)
    assert torch.equal(at_centres(plane, (16, 24)), plane)
    assert at_centres(plane, (1, 1)).item() == 812


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


def test_the_control_is_cross_entropy_with_the_teachers_labels():
    batch, student = batch_of(), small()
    weight = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1))
    label = torch.randint(CLASSES, (2, 32, 32), generator=torch.Generator().manual_seed(2))
    views = [Pseudo(label, weight, weight), Pseudo(2 - label, weight / 2, weight)]
    whole = Pseudo(label, weight, weight, pair=(views[0], views[1]))
    found = ViewsTerm()(student, batch, whole, torch.Generator().manual_seed(0))
    whole.pair[0].weight.zero_()
    whole.pair[1].weight.zero_()
    nothing = ViewsTerm()(student, batch, whole, torch.Generator().manual_seed(0))
    assert found > 0
    assert nothing.item() == 0


def test_hidden_blocks_are_the_mean_colour():
    """Which is 0 for the network, as in MIC; what is hidden makes no difference."""
    batch, student = batch_of(), Window()
    pseudo = flat(2, 32, torch.zeros(2, 32, 32, dtype=torch.long), 0.9)
    term = MaskedConsistency(block=8, ratio=0.5)
    loss = term(student, batch, pseudo, torch.Generator().manual_seed(0))
    loss.backward()
    assert student.scale.grad.isfinite()
    hidden = (student.seen == 0).all(dim=1)
    cells = F.avg_pool2d(hidden[:, None].float(), 8)
    assert set(cells.flatten().tolist()) == {0.0, 1.0}
    assert MaskedConsistency(block=8, ratio=0.0)(student, batch, pseudo) > 0
    MaskedConsistency(block=8, ratio=1.0)(student, batch, pseudo)
    assert not student.seen.any()


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


def test_outputs_are_supervised_in_their_boxes_by_their_share():
    logits = torch.randn(1, CLASSES, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, part = Box(slice(0, 16), slice(0, 16)), Box(slice(4, 12), slice(8, 16))
    outputs = [Output(logits, whole, 0.9), Output(logits[..., :2, :2], part, 0.1)]
    view = View([], whole)
    label = torch.arange(16).view(1, 16, 1).expand(1, 16, 16) % 3
    weight = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for output in outputs:
        rows, columns = output.box
        size = (rows.stop - rows.start, columns.stop - columns.start)
        each = F.cross_entropy(
            F.interpolate(output.logits, size, mode="bilinear"),
            label[:, rows, columns],
            reduction="none",
        )
        expected += output.weight * (each * weight[:, rows, columns]).mean()
    found = supervised(Prediction(outputs, view, view), label, weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_losses_are_float32_under_autocast_and_near_those_without():
    student, batch = small(), batch_of()
    pixel, patch = PixelTerm(width=16, dim=8), PatchTerm(threshold=0.0, width=16, dim=8, memory=0)
    pixel.prepare(student)
    patch.prepare(student)
    label = (torch.arange(32) // 8 % 3).view(1, 1, 32).expand(2, 32, 32)
    whole = flat(2, 32, label, 0.5)
    whole.pair = flat(2, 32, label, 0.5), flat(2, 32, label, 0.6)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            prediction = student.analyse(batch.source.image)
            losses = [
                supervised(prediction, batch.source.label),
                pixel(prediction, batch.source, torch.Generator().manual_seed(0)),
                patch(student, batch, whole, torch.Generator().manual_seed(0)),
            ]
        assert all(loss.dtype == torch.float32 for loss in losses)
        found.append(torch.stack(losses))
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.02)


def test_nothing_waits_for_the_device():
    """Nothing asks what a tensor holds: on a GPU that would stop the program at each step.

    Colours are left out: kornia's blur does ask whether every sigma is positive.
    """
    student, batch = small(), batch_of()
    teacher = Teacher(student)
    source_terms = [PixelTerm(), PixelTerm(similarity=0.1, sampling="random")]
    source_terms.append(FeatureDistance(classes=(0, 2)))
    patch = PatchTerm(jitter=False)
    for term in (*source_terms, patch):
        term.prepare(student)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for term in source_terms:
            term(student.analyse(batch.source.image), batch.source).backward()
        teacher.follow(student, 3)
        pseudo = teacher.label(batch.target, batch.pair)
        mixed = mix_images(batch.source, batch.target, pseudo)
        supervised(student.analyse(mixed.image), mixed.label, mixed.weight).backward()
        patch(student, batch, pseudo).backward()
        with pytest.raises(DataDependentOutputException):
            mixed.weight.sum().item()
