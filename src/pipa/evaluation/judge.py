"""Choice among networks by unlabelled images, and the certainty of the choice.

mIoU cannot be measured without labels. `score` replaces it: the agreement of a network with itself
when an image is perturbed, A, times the closeness of the class shares of its predictions to those
of the source's labels, A * (1 - sqrt(JS / ln 2)). It assumes that the classes are about as frequent
in the target as in the source. It is a veto rather than a ranking: it detects a network that
adaptation has ruined more reliably than it distinguishes two good networks.

Three criteria of the literature are reported but decide nothing, since each of them prefers some
ruined networks: soft neighbourhood density (Saito et al., ICCV 2021), mutual information (InfoMax:
Krause et al., NIPS 2010) and the mean confidence.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Generator

from pipa.errors import PipaError
from pipa.evaluation.perturbations import perturb
from pipa.evaluation.unlabelled import (
    Observed,
    agreement,
    divergence,
    information,
    observe,
    score,
    stack,
)
from pipa.files.writing import write_text
from pipa.models.inputs import as_batch
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating

Image = UInt8[np.ndarray, "_ _ 3"] | Path | str
"""An RGB image, or its file; images may differ in size."""
Shares = Sequence[float] | Sequence[int] | np.ndarray
Outcome = Literal["better", "not distinguishable", "worse"]
DRAWS = 2000
"""Number of resamples of the bootstrap."""


@dataclass(frozen=True)
class Figures:
    """The criteria of one network; more is better, except for `js`."""

    score: float
    """agreement * (1 - sqrt(js / ln 2)), in [0, 1]."""
    agreement: float
    """A: mIoU of predictions for perturbed images with those for the originals, in [0, 1]."""
    js: float
    """Jensen-Shannon divergence of the predicted class shares and the source's, in [0, ln 2]."""
    snd: float
    """Soft neighbourhood density, in nats."""
    information: float
    """Mutual information of input and prediction, in nats."""
    confidence: float
    """Mean probability of the predicted classes."""


ENOUGH = 6
"""Minimum number of images for a verdict.

The bootstrap of two equally good networks excludes 0 with a probability of about 2^(1 - images)."""


@dataclass(frozen=True)
class Verdict:
    """The comparison of two networks; `str(verdict)` is a sentence."""

    model: str
    against: str
    difference: float
    """Score of `model` minus score of `against`."""
    interval: tuple[float, float]
    """95 % interval of the difference when images are resampled (percentile bootstrap)."""
    images: int
    """Number of images."""

    @property
    def outcome(self) -> Outcome:
        """Return better or worse if the interval is on one side of 0, else not distinguishable.

        So are two networks by fewer images than `ENOUGH`.
        """
        if self.images >= ENOUGH and self.interval[0] > 0:
            return "better"
        if self.images >= ENOUGH and self.interval[1] < 0:
            return "worse"
        return "not distinguishable"

    def __str__(self) -> str:
        """Return the verdict as a sentence with its numbers."""
        low, high = self.interval
        found = (
            f"{self.model} and {self.against} are not distinguishable"
            if self.outcome == "not distinguishable"
            else f"{self.model} is {self.outcome} than {self.against}"
        )
        return (
            f"{found}: difference of the scores {self.difference:+.3f}, 95 % interval "
            f"[{low:+.3f}, {high:+.3f}] over {self.images} unlabelled images"
            f"{'' if self.images >= ENOUGH else f' (fewer than {ENOUGH} cannot tell)'}"
        )


@dataclass(frozen=True)
class Judgement:
    """The result of `judge`.

    Args:
        observed: The observations of each network, by name.
        source_shares: Share of each class in the source's labels; they sum to 1.
    """

    observed: dict[str, Observed]
    source_shares: Float[np.ndarray, " k"]

    def figures(self, model: str) -> Figures:
        """Return all criteria of one network."""
        found = self._of(model)
        once = np.ones((1, len(found.count)))
        return Figures(
            score=float(self._scores(model, once)[0]),
            agreement=float(agreement(found, self.source_shares, once)[0]),
            js=float(divergence(found, self.source_shares, once)[0]),
            snd=float(found.snd.mean()),
            information=information(found),
            confidence=float(found.confidence.mean()),
        )

    def ranking(self) -> list[str]:
        """Return the names of the networks, the highest score first."""
        return sorted(self.observed, key=lambda name: -self.figures(name).score)

    def verdict(self, model: str, against: str) -> Verdict:
        """Compare two networks on the same resamples of the images.

        Args:
            model: Name of the first network.
            against: Name of the second: the source-only network, to judge adaptation.

        Raises:
            PipaError: A name is unknown.
        """
        n = len(self._of(model).count)
        weight = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)
        change = self._scores(model, weight) - self._scores(against, weight)
        low, high = np.quantile(change, [0.025, 0.975])
        difference = self.figures(model).score - self.figures(against).score
        return Verdict(model, against, difference, (float(low), float(high)), n)

    def table(self) -> Table:
        """Make a table of all criteria for the terminal, the highest score first."""
        table = Table(title="Without labels: more is better, except for JS", title_justify="left")
        table.add_column("model", overflow="fold", min_width=16)
        table.caption = (
            "score = agreement x (1 - sqrt(JS / ln 2)); JS: class shares against the source's."
            " SND, MI (mutual information) and confidence decide nothing."
        )
        for title in ("score", "agreement", "JS", "SND", "MI", "confidence"):
            table.add_column(title, justify="right")
        for name in self.ranking():
            table.add_row(
                Text(name), *(f"{value:.3f}" for value in vars(self.figures(name)).values())
            )
        return table

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "images": len(next(iter(self.observed.values())).count),
            "source_shares": self.source_shares.tolist(),
            "models": {
                name: {
                    **vars(self.figures(name)),
                    "shares": (found.count.sum(axis=0) / found.count.sum()).tolist(),
                }
                for name, found in self.observed.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write `as_dict` as a JSON file, whole or not at all.

        Raises:
            PipaError: The file cannot be written.
        """
        write_text(path, json.dumps(self.as_dict(), indent=1) + "\n")

    def _scores(self, model: str, weight: Float[np.ndarray, "d n"]) -> Float[np.ndarray, " d"]:
        found, shares = self._of(model), self.source_shares
        return score(agreement(found, shares, weight), divergence(found, shares, weight))

    def _of(self, model: str) -> Observed:
        if model not in self.observed:
            raise PipaError("was not judged", model, f"Judged: {', '.join(self.observed)}.")
        return self.observed[model]


def judge(
    models: Mapping[str, Segmenter],
    images: Sequence[Image],
    source_shares: Shares,
    *,
    seed: int = 0,
    quiet: bool = True,
) -> Judgement:
    """Judge networks by unlabelled images of the target.

    Args:
        models: Networks of the same classes by name; their modes are restored.
        images: Images of the target at the size of use; files are in memory one at a time. 20 or
            more are needed to distinguish networks.
        source_shares: Share of each class in the source's labels, or counts of its pixels.
        seed: Decides the perturbations; they are the same for all networks.
        quiet: Show no progress bar.

    Raises:
        PipaError: There is no network or no image, or the classes do not fit.
    """
    shares = _checked(models, images, source_shares)
    found: dict[str, list[Observed]] = {name: [] for name in models}
    with ExitStack() as modes, torch.inference_mode():
        for model in models.values():
            modes.enter_context(evaluating(model))
        for i in track(range(len(images)), description="judging", transient=True, disable=quiet):
            # Not the next one, which often is the next frame.
            far = (i + max(1, len(images) // 2)) % len(images)
            image, other = (as_batch(images[j])[0] for j in (i, far))
            changes = perturb(image, other, Generator().manual_seed(seed * 1_000_003 + i))
            for name, model in models.items():
                generator = Generator().manual_seed(seed * 1_000_003 + i)
                found[name].append(observe(model, image, changes, generator))
    return Judgement({name: stack(one) for name, one in found.items()}, shares)


def _checked(
    models: Mapping[str, Segmenter], images: Sequence[Image], source_shares: Shares
) -> Float[np.ndarray, " k"]:
    """Check the arguments of `judge`; return the source's shares, which sum to 1."""
    if not models or not images:
        raise PipaError("nothing to judge", remedy="Give at least one network and one image.")
    shares = np.asarray(source_shares, dtype=np.float64)
    for name, model in models.items():
        if model.num_classes != len(shares):
            raise PipaError(
                f"has {model.num_classes} classes, the source's shares {len(shares)}",
                name,
                "Judge networks of the same classes, and count those in the source's labels.",
            )
    known = {name: model.labels.names for name, model in models.items() if model.labels is not None}
    for name, names in known.items():
        first = next(iter(known))
        if names != known[first]:
            raise PipaError(
                f"its classes ({', '.join(names[:4])}, ...) are not those of {first} "
                f"({', '.join(known[first][:4])}, ...)",
                name,
                "Judge networks of the same classes.",
            )
    if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.sum() > 0):
        raise PipaError(
            "are no shares of classes", "source_shares", "Give numbers >= 0, not all of them 0."
        )
    return np.asarray(shares / shares.sum())
