"""Networks at work on a few images: what they predict, how sure they are, and their features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX
from pipa.classes import LabelSpace
from pipa.data.dataset import Sample, Segmentation, open_domains
from pipa.data.loading import fitted
from pipa.errors import PipaError
from pipa.evaluation.features import Features, project, scattered
from pipa.models.inputs import as_batch
from pipa.models.segmenter import Segmenter
from pipa.models.windows import enlarge, evaluating, slide

BINS = 10
"""Bins of confidence, of equal width."""
POINTS = 400
"""Points of each domain whose features are shown."""
FAR = 768
"""Maximum side of the part of an image whose features are taken, in pixels."""


@dataclass(frozen=True)
class Seen:
    """One image, its truth if known, and the predictions of the networks."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    truth: Integer[np.ndarray, "h w"] | None
    """Class ids; 255 where a pixel has none."""
    predictions: Mapping[str, UInt8[np.ndarray, "h w"]]

    @property
    def changed(self) -> float:
        """Share of the pixels whose class is another in the last prediction than in the first."""
        found = list(self.predictions.values())
        return float((found[0] != found[-1]).mean()) if len(found) > 1 else 0.0

    @property
    def classes(self) -> Integer[np.ndarray, "h w"]:
        """The truth, or else the last prediction."""
        return list(self.predictions.values())[-1] if self.truth is None else self.truth

    def right(self, model: str) -> float | None:
        """Share of the labelled pixels that a network gets right; None without labels."""
        if self.truth is None or not (known := self.truth != IGNORE_INDEX).any():
            return None
        return float((self.predictions[model] == self.truth)[known].mean())


@dataclass
class Examination:
    """What was seen of some networks."""

    images: str
    """The data set."""
    labels: LabelSpace
    seen: list[Seen] = field(default_factory=list)
    """The image that changed most comes first."""
    bins: dict[str, Float[np.ndarray, "bins 3"]] = field(default_factory=dict)
    """Of each network, by confidence: pixels, right pixels, sum of the confidence."""
    features: dict[str, Features] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return any(one.truth is not None for one in self.seen)


def examine(models: Mapping[str, Segmenter], data: Mapping[str, Any], count: int) -> Examination:
    """Look at networks on images of a run: its validation data, else its target.

    Args:
        models: Networks of the same classes by name, the earlier first; their modes are restored.
        data: The `data` section of the run.
        count: Maximum number of images; they are spread over the data set.

    Raises:
        PipaError: The data are not there, or an image is unreadable.
    """
    skip = data.get("on_error") == "skip"
    domains = open_domains(
        data["source"],
        data.get("target"),
        data.get("validation"),
        format=data.get("format") or "folder",
        classes=data.get("classes"),
        cache=False,
        workers=0,
        skipped=[] if skip else None,
    )
    images = domains.validation or domains.target
    if images is None:
        raise PipaError("the run has no target, so there is nothing to show")
    if any(model.num_classes != domains.labels.num_classes for model in models.values()):
        raise PipaError("the data's classes are not the model's", data["source"])
    found = Examination(str(data.get("validation") or data.get("target")), domains.labels)
    samples = some(images, count, data.get("target_resize"), skip=skip)
    origin = some(domains.source, count, data.get("source_resize"), skip=skip)
    found.bins = {name: np.zeros((BINS, 3)) for name in models}
    with torch.inference_mode():
        for sample in samples:
            predictions = {}
            for name, model in models.items():
                ids, bins = predict_surely(model, sample)
                predictions[name] = ids
                found.bins[name] += bins
            found.seen.append(Seen(sample.path.name, sample.image, sample.label, predictions))
        for name, model in models.items():
            found.features[name] = project(
                features_of(model, origin, [one.label for one in origin]),
                features_of(model, samples, [one.classes for one in found.seen]),
            )
    found.seen.sort(key=lambda one: -one.changed)
    return found


def some(
    images: Segmentation, count: int, resize: Sequence[int] | None, *, skip: bool
) -> list[Sample]:
    """Load images that are spread over a data set, at their size of use.

    Args:
        images: The data set.
        count: Maximum number of images.
        resize: Fit each into this size first; None: leave it as it is.
        skip: Leave out files that are faulty.

    Raises:
        PipaError: One is faulty and not to be skipped, or all are.
    """
    places = np.linspace(0, len(images) - 1, min(count, len(images)))
    bounds = None if resize is None else (resize[0], resize[1])  # YAML has lists
    samples = []
    for index in dict.fromkeys(round(place) for place in places.tolist()):
        try:
            samples.append(fitted(images.load(index), bounds))
        except PipaError:
            if not skip:
                raise
    if not samples:
        raise PipaError("none of the images that were looked at can be read", images.root)
    return samples


def predict_surely(
    model: Segmenter, sample: Sample
) -> tuple[UInt8[np.ndarray, "h w"], Float[np.ndarray, "bins 3"]]:
    """Predict an image; return class ids, and what is known of each bin of confidence.

    Without labels no pixel is right.
    """
    with evaluating(model):
        logits = slide(model, as_batch(sample.image)[0].to(model.mean.device))
    confidence, ids = (one[0].cpu().numpy() for one in logits.softmax(dim=1).max(dim=1))
    known = np.ones(ids.shape, bool) if sample.label is None else sample.label != IGNORE_INDEX
    right = np.zeros(ids.shape, bool) if sample.label is None else ids == sample.label
    place = np.minimum((confidence[known] * BINS).astype(int), BINS - 1)
    columns = (np.ones(place.shape), right[known], confidence[known])
    bins = np.stack([np.bincount(place, column, BINS) for column in columns], axis=1)
    return ids.astype(np.uint8), bins.astype(float)  # of no pixel, bins are whole numbers


def features_of(
    model: Segmenter, samples: list[Sample], labels: Sequence[Integer[np.ndarray, "_ _"] | None]
) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """Return what the encoder makes of some pixels, and their classes.

    The maps of all strides are joined, each as a unit vector: what PiPa's projection heads see.

    Args:
        model: The network.
        samples: The images.
        labels: The classes of their pixels.
    """
    rng = np.random.default_rng(0)
    vectors, classes = [], []
    for sample, label in zip(samples, labels, strict=True):
        assert label is not None, "a source has labels, and predictions are labels"
        box = tuple(slice((n - min(n, FAR)) // 2, (n + min(n, FAR)) // 2) for n in label.shape)
        middle = as_batch(sample.image[box])[0].to(model.mean.device)
        image = enlarge(middle, minimum=64, multiple=32)
        with evaluating(model):
            maps = model.context(image).features
        rows, columns = scattered(label[box], -(-POINTS // len(samples)), rng)
        height, width = image.shape[-2:]
        grid = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], axis=1)
        places = torch.from_numpy(grid).to(image)[None, None]
        parts = [F.normalize(at(one, places), dim=1) for one in maps]
        vectors.append(torch.cat(parts, dim=1).cpu().double().numpy())
        classes.append(label[box][rows, columns])
    return np.concatenate(vectors), np.concatenate(classes).astype(np.int64)


def at(one: Float[Tensor, "1 c h w"], places: Float[Tensor, "1 1 n 2"]) -> Float[Tensor, "n c"]:
    """Interpolate a map at places in [-1, 1]."""
    found = F.grid_sample(one, places.to(one), align_corners=False, padding_mode="border")
    return found[0, :, 0].T
