"""The judge: its criteria against plain loops, and networks that must and must not win."""

import json
import math

import numpy as np
import pytest
import torch
from builders import mosaic, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from pipa.batch import Box
from pipa.errors import PipaError
from pipa.evaluation.judge import Judgement, judge
from pipa.evaluation.perturbations import perturb
from pipa.evaluation.unlabelled import (
    Observed,
    agreement,
    divergence,
    entropy,
    neighbourhood_density,
    stack,
)
from pipa.files.images import write_png
from pipa.models.segmenter import Output, Prediction, Segmenter, View

K = 3
COLOURS = torch.from_numpy(
    np.stack([picture(np.full((16, 16), k), 0).mean(axis=(0, 1)) for k in range(K)])
).float()
IMAGES = [picture(mosaic(seed, (48, 64)), seed) for seed in range(8)]
SHARES = [1 / 3] * 3


class Nearest(Segmenter):
    """Predicts the class of the nearest colour for each pixel; `noise` depends on the pixels."""

    def __init__(self, noise: float = 0.0, bias: tuple[float, ...] = (0, 0, 0)) -> None:
        super().__init__(K)
        self.noise, self.bias = noise, torch.tensor(bias).float().view(1, -1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        distance = (image[:, None] - COLOURS.view(1, K, 3, 1, 1) / 255).square().sum(dim=2)
        jumpy = torch.sin(
            image.sum(dim=1, keepdim=True) * torch.tensor([3e3, 5e3, 7e3]).view(1, K, 1, 1)
        )
        return -30 * distance + self.noise * jumpy + self.bias

    def context(self, image: Tensor) -> View:
        return View([image], Box(slice(None), slice(None)))

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        return Prediction([Output(self(image), view.box, 1.0)], view, view)


PERFECT, NOISY, CONSTANT = Nearest(), Nearest(noise=4.0), Nearest(bias=(1e4, 0, 0))


@settings(max_examples=10, deadline=None)
@given(first=st.floats(0.2, 0.9))
def test_a_constant_predictor_does_not_win(first):
    """It must lose even if nearly all pixels are of its class."""
    shares = [first, (1 - first) / 2, (1 - first) / 2]
    rng = np.random.default_rng(0)
    labels = [rng.choice(K, (6, 8), p=shares).repeat(8, 0).repeat(8, 1) for _ in range(6)]
    images = [picture(label, i) for i, label in enumerate(labels)]
    found = judge({"constant": CONSTANT, "perfect": PERFECT}, images, shares)
    assert found.ranking() == ["perfect", "constant"]
    assert found.verdict("constant", "perfect").outcome == "worse"


def test_the_perfect_one_beats_the_noisy_one_and_says_so():
    found = judge({"noisy": NOISY, "perfect": PERFECT}, IMAGES, SHARES)
    assert found.ranking() == ["perfect", "noisy"]
    better, worse = found.verdict("perfect", "noisy"), found.verdict("noisy", "perfect")
    assert (better.outcome, worse.outcome) == ("better", "worse")
    assert better.interval[0] > 0
    assert better.difference == pytest.approx(-worse.difference)
    low, high = better.interval
    assert str(better) == (
        f"perfect is better than noisy: difference of the scores {better.difference:+.3f}, "
        f"95 % interval [{low:+.3f}, {high:+.3f}] over 8 unlabelled images"
    )
    assert found.figures("perfect").score > 0.8


def test_a_few_images_give_no_verdict():
    """Two images would call every second pair of equally good networks better or worse."""
    found = judge({"noisy": NOISY, "perfect": PERFECT}, IMAGES[:5], SHARES)
    few = found.verdict("perfect", "noisy")
    assert few.interval[0] > 0
    assert few.outcome == "not distinguishable"
    assert str(few).endswith("over 5 unlabelled images (fewer than 6 cannot tell)")


def test_the_interval_is_that_of_images_drawn_again():
    found = judge({"noisy": NOISY, "perfect": PERFECT}, IMAGES, SHARES)
    verdict, rng, differences = found.verdict("perfect", "noisy"), np.random.default_rng(1), []
    for _ in range(1000):
        drawn = rng.integers(0, 8, 8)
        again = {
            name: Observed(*(column[drawn] for column in vars(one).values()))
            for name, one in found.observed.items()
        }
        redone = Judgement(again, found.source_shares)
        differences.append(redone.figures("perfect").score - redone.figures("noisy").score)
    expected = np.quantile(differences, [0.025, 0.975])
    width = expected[1] - expected[0]
    np.testing.assert_allclose(verdict.interval, expected, atol=0.06 * width)


def test_equals_are_not_distinguishable_and_one_image_proves_nothing():
    twins = judge({"a": PERFECT, "b": Nearest()}, IMAGES, SHARES).verdict("a", "b")
    assert (twins.outcome, twins.difference) == ("not distinguishable", 0)
    single = judge({"noisy": NOISY, "perfect": PERFECT}, IMAGES[:1], SHARES)
    verdict = single.verdict("perfect", "noisy")
    assert verdict.difference > 0
    assert "perfect and noisy are not distinguishable" in str(verdict)


def test_class_shares_unlike_the_sources_cost():
    even = judge({"perfect": PERFECT}, IMAGES, [1, 1, 1]).figures("perfect")
    odd = judge({"perfect": PERFECT}, IMAGES, [90, 5, 5]).figures("perfect")
    assert even.agreement == odd.agreement
    assert even.js < 0.02 < odd.js
    assert even.score > odd.score + 0.2


def observed(seed, n=5, p=2, k=4):
    """Labels before and after, and the counts that `observe` would make of them."""
    rng = np.random.default_rng(seed)
    before = rng.integers(0, k - 1, (n, 30))  # the last class is never there
    after = np.where(
        rng.random((n, p, 30)) < 0.6, before[:, None], rng.integers(0, k - 1, (n, p, 30))
    )
    both = np.array(
        [
            [[((b == c) & (a == c)).sum() for c in range(k)] for a in one]
            for b, one in zip(before, after, strict=True)
        ]
    )
    either = np.array(
        [
            [[((b == c) | (a == c)).sum() for c in range(k)] for a in one]
            for b, one in zip(before, after, strict=True)
        ]
    )
    count = np.array([[(b == c).sum() for c in range(k)] for b in before])
    none = np.zeros(n)
    floats = (both.astype(float), either.astype(float), count.astype(float))
    return before, after, Observed(*floats, count / 30, none, none, none)


@pytest.mark.parametrize("known", [True, False])
def test_agreement_is_the_mean_iou_pixel_by_pixel(known):
    before, after, found = observed(0)
    shares = np.array([0.4, 0.3, 0.2, 0.1 if known else 0.0])
    means = []
    for p in range(after.shape[1]):
        pairs = list(zip(before.ravel(), after[:, p].ravel(), strict=True))
        iou = [
            sum(b == c == a for b, a in pairs) / sum(c in (b, a) for b, a in pairs)
            for c in range(3)
        ]
        means.append(sum(iou) / (4 if known else 3))  # of the source, but never predicted: 0
    result = agreement(found, shares, np.ones((1, 5)))
    np.testing.assert_allclose(result, [sum(means) / 2], atol=1e-12)


def test_divergence_is_jensens_and_shannons():
    before, _, found = observed(1)
    p = np.bincount(before.ravel(), minlength=4) / before.size
    q = np.array([0.1, 0.2, 0.3, 0.4])
    kl = [
        sum(x * math.log(x / ((x + y) / 2)) for x, y in zip(a, b, strict=True) if x)
        for a, b in ((p, q), (q, p))
    ]
    np.testing.assert_allclose(divergence(found, q, np.ones((1, 5))), [sum(kl) / 2], atol=1e-12)
    assert divergence(found, p, np.ones((1, 5)))[0] == pytest.approx(0, abs=1e-12)


def test_weights_are_repetitions():
    """A bootstrap that weights images equals one that repeats them."""
    *_, found = observed(2)
    shares = np.array([0.25, 0.25, 0.25, 0.25])
    drawn = [0, 0, 3, 4, 4]
    one = [Observed(*(np.asarray(x[i]) for x in vars(found).values())) for i in drawn]
    weight = np.array([[2.0, 0, 0, 1, 2]])
    for criterion in (agreement, divergence):
        repeated = criterion(stack(one), shares, np.ones((1, 5)))
        np.testing.assert_allclose(criterion(found, shares, weight), repeated, atol=1e-12)


def test_density_is_the_mean_entropy_of_similarities():
    rows = torch.rand(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows /= rows.sum(dim=1, keepdim=True)
    total = 0.0
    for i in range(7):
        cosine = [
            float(rows[i] @ rows[j] / rows[i].norm() / rows[j].norm()) if i != j else -1.0
            for j in range(7)
        ]
        e = [math.exp(c / 0.05) for c in cosine]
        total -= sum(x / sum(e) * math.log(x / sum(e)) for x in e)
    assert neighbourhood_density(rows).item() == pytest.approx(total / 7, abs=1e-10)


def test_the_criteria_of_the_literature():
    found = judge({"constant": CONSTANT, "perfect": PERFECT, "noisy": NOISY}, IMAGES, SHARES)
    constant, perfect = found.figures("constant"), found.figures("perfect")
    assert constant.information == pytest.approx(0, abs=1e-6)
    assert constant.confidence == pytest.approx(1)
    assert 0.5 < perfect.information <= math.log(K)
    assert entropy(np.array([0.5, 0.5])) == pytest.approx(math.log(2))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), h=st.integers(9, 20), w=st.integers(9, 20))
def test_what_is_restored_lies_where_it_was(seed, h, w):
    """With the image as logits, a change that only moves pixels is restored to the pixel."""
    generator = torch.Generator().manual_seed(seed)
    image, other = torch.rand(1, 3, h, w, generator=generator), torch.rand(1, 3, 5, 7)
    changes = perturb(image, other, generator)
    for name in ("mirror", "crop", "halves"):
        change = changes[name]
        assert torch.equal(change.restore(change.image), image[..., *change.box])
        assert not torch.equal(change.image, image)
    assert changes["crop"].image.shape[-2:] == (round(0.7 * h), round(0.7 * w))
    for name in ("smaller", "larger"):
        smooth = torch.linspace(0, 1, w).expand(1, 3, h, w)
        change = perturb(smooth, other, generator)[name]
        assert change.image.shape != image.shape
        assert (change.restore(change.image) - smooth).abs().mean() < 0.03
    assert changes["colour"].image.min() >= 0
    assert changes["colour"].image.max() <= 1


def test_the_seed_decides_and_files_are_as_good_as_arrays(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, IMAGES, strict=False):
        write_png(path, image)
    models = {"noisy": NOISY}
    torch.manual_seed(5)
    first = judge(models, IMAGES[:3], SHARES).as_dict()
    after = torch.rand(())
    assert first == judge(models, paths, SHARES).as_dict()
    assert first == judge(models, [str(p) for p in paths], [2, 2, 2]).as_dict()
    assert first != judge(models, paths, SHARES, seed=1).as_dict()
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))  # nobody else's chance is touched


def test_networks_keep_their_mode():
    model = Nearest().train()
    judge({"a": model}, IMAGES[:1], SHARES)
    assert model.training


def test_the_table_and_the_file(tmp_path):
    found = judge({"noisy": NOISY, "perfect": PERFECT}, IMAGES[:3], SHARES)
    console = Console(width=80, record=True)  # a terminal's: nothing may be cut off
    console.print(found.table())
    lines = [line for line in console.export_text().splitlines() if "│ " in line]
    assert [line.split()[1] for line in lines] == ["perfect", "noisy"]
    for line in lines:
        assert line.split()[3::2][:6] == [
            f"{v:.3f}" for v in vars(found.figures(line.split()[1])).values()
        ]
    found.write(tmp_path / "judgement.json")
    stored = json.loads((tmp_path / "judgement.json").read_text())
    assert stored["images"] == 3
    assert stored["models"]["perfect"]["score"] == found.figures("perfect").score
    assert sum(stored["models"]["noisy"]["shares"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("models", "images", "shares", "problem"),
    [
        ({}, IMAGES, SHARES, "nothing to judge"),
        ({"a": PERFECT}, [], SHARES, "nothing to judge"),
        ({"a": PERFECT}, IMAGES, [0.5, 0.5], "a: has 3 classes, the source's shares 2"),
        ({"a": PERFECT}, IMAGES, [0, 0, 0], "are no shares"),
        ({"a": PERFECT}, IMAGES, [1, -1, 2], "are no shares"),
        ({"a": PERFECT}, IMAGES, [math.nan, 1, 1], "are no shares"),
    ],
)
def test_what_cannot_be_judged_is_refused(models, images, shares, problem):
    with pytest.raises(PipaError, match=problem):
        judge(models, images, shares)


def test_a_name_that_was_not_judged_is_refused():
    with pytest.raises(PipaError, match=r"b: was not judged\. Judged: a\."):
        judge({"a": PERFECT}, IMAGES[:1], SHARES).verdict("a", "b")
