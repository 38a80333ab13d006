"""The random crops of one training item, from full images.

A draw is a pure function of (seed, stream, number): the same for any number of workers and
processes, and for every method. Images stay uint8 until they are on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from pipa.batch import IGNORE_INDEX, CropPair, Labelled, PairPlace, Unlabelled
from pipa.data import crops
from pipa.data.crops import Crop
from pipa.data.cutting import Cutting, as_tensor
from pipa.data.dataset import Segmentation
from pipa.data.rare_classes import RareClasses
from pipa.data.target_crops import TargetCrops
from pipa.errors import PipaError

_GIVE_UP = 100  # faults in a row after which skipping makes no sense


class Item(NamedTuple):
    """What is drawn for a `Batch`: single crops, or a stack of them."""

    source: Labelled
    target: Unlabelled | None = None
    pair: CropPair | PairPlace | None = None


class Loaded(NamedTuple):
    """One item of a loader, or a stack of several, and the files that were skipped for it."""

    content: Item | Labelled | None
    """None if a faulty file is skipped and nothing is loaded in its place."""
    skipped: list[PipaError]


@dataclass(frozen=True)
class SourceCrops:
    """Draws labelled crops of the source.

    Args:
        images: The source.
        cutting: Geometry of the crops.
        cat_max_ratio: No class may have more than this share of a crop (papers: 0.75).
        rare: Rare class sampling; None: each image is equally likely.
        min_crop_ratio: The crop must have more pixels of the rare class than this times the class's
            `min_pixels` (DAFormer 0.5, HRDA 2.0).
    """

    images: Segmentation
    cutting: Cutting
    cat_max_ratio: float = 0.75
    rare: RareClasses | None = None
    min_crop_ratio: float = 0.5

    def draw(self, rng: np.random.Generator) -> Labelled:
        """Choose an image, a crop of it, and its mirroring."""
        wanted, needed = None, 0.0
        if self.rare is None:
            index = int(rng.integers(len(self.images)))
        else:
            index, wanted, pixels = self.rare.draw(rng)
            needed = pixels * self.min_crop_ratio
        sample = self.images.load(index)
        assert sample.label is not None, "the source has labels"
        label, size, crop = sample.label, self.cutting.fit(sample), self.cutting.crop

        def somewhere() -> Crop:
            corner = crops.draw_corner(rng, size, crop)
            return corner, crops.cut_label(label, size, corner, crop)

        for _ in range(1 + crops.ATTEMPTS):
            corner, part = crops.pick_varied(somewhere, self.cat_max_ratio)
            if wanted is None or np.count_nonzero(part == wanted) > needed:
                break
        image = crops.pad_image(crops.cut_image(sample.image, size, corner, crop), crop)
        part = crops.pad_plane(part, crop, IGNORE_INDEX)
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        return Labelled(as_tensor(image[:, flip]), as_tensor(part[:, flip]))


Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Draws:
    """The items of a training set: item i is draw i of the source and draw i of the target.

    Args:
        source: Draws the source.
        target: Draws the target; None: no target.
        seed: Decides both streams of draws, which are independent of each other.
        on_error: "stop": a faulty file ends the run. "skip": it is left out, and reported.
    """

    source: SourceCrops
    target: TargetCrops | None
    seed: int
    on_error: Literal["stop", "skip"] = "stop"

    def __getitem__(self, number: int) -> Loaded | PipaError:
        """Return the item, or the error as a value.

        An exception would lose its message on leaving a worker's process.
        """
        skipped: list[PipaError] = []
        target = pair = None
        try:
            rng = np.random.default_rng([self.seed, 0, number])
            source = self._retried(self.source.draw, rng, skipped)
            if self.target is not None:
                rng = np.random.default_rng([self.seed, 1, number])
                target, pair = self._retried(self.target.draw, rng, skipped)
        except PipaError as error:
            return error
        return Loaded(Item(source, target, pair), skipped)

    def _retried(
        self,
        draw: Callable[[np.random.Generator], Drawn],
        rng: np.random.Generator,
        skipped: list[PipaError],
    ) -> Drawn:
        for _ in range(_GIVE_UP):
            try:
                return draw(rng)
            except PipaError as error:
                if self.on_error == "stop":
                    raise
                skipped.append(error)
        raise skipped[-1]
