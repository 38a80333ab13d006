"""The random crops of one training item, from full images.

A draw is a pure function of (seed, stream, number): the same for any number of workers and
processes, and for every method. Images stay uint8 until they are on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipa.batch import IGNORE_INDEX, Batch, CropPair, Labelled, Unlabelled
from pipa.data import crops
from pipa.data.crops import Corner, Crop, Size
from pipa.data.dataset import Sample, Segmentation
from pipa.data.rare_classes import RareClasses
from pipa.errors import PipaError

Margins = tuple[int, int, int, int]
"""Rows and columns at the top, bottom, left and right."""

_GIVE_UP = 100  # faults in a row after which skipping makes no sense


class Loaded(NamedTuple):
    """One item of a loader, or a stack of several, and the files that were skipped for it."""

    content: Batch | Labelled | None
    """None if a faulty file is skipped and nothing is loaded in its place."""
    skipped: list[PipaError]


@dataclass(frozen=True)
class Cutting:
    """How crops are cut.

    Args:
        crop: Height and width.
        resize: Scale each image to fit into this first; None: leave it as it is.
        pad: Fill up images that are smaller than the crop instead of refusing them.
    """

    crop: Size
    resize: Size | None = None
    pad: bool = False

    def fit(self, sample: Sample, scale: float = 1.0) -> Size:
        """Return the size of an image after resizing.

        Raises:
            PipaError: The crop is larger than that.
        """
        before = sample.image.shape[:2]
        height, width = crops.fit_size(before, self.resize)
        size = round(height * scale), round(width * scale)
        if not self.pad and (size[0] < self.crop[0] or size[1] < self.crop[1]):
            resized = "" if size == before else " after resizing"
            raise PipaError(
                f"the crop of {self.crop[0]}x{self.crop[1]} is larger than the image, "
                f"{size[0]}x{size[1]}{resized} (rows x columns)",
                sample.path,
                "Choose a smaller crop, or set `pad: true`.",
            )
        return size


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
        return Labelled(_tensor(image[:, flip]), _tensor(part[:, flip]))


@dataclass(frozen=True)
class PairCutting:
    """How the two overlapping crops of a target image are cut.

    Args:
        pair_crop: Height and width of both.
        pair_iou: Bounds of their intersection over union.
        pair_stride: Their corners differ by multiples of it.
        pair_scale: Bounds of a factor on the target's size, drawn for each image.
        pair_frames: The second crop is cut from another frame of the same folder, at most so many
            files before or after, at the overlapping place; see `TargetCrops`. 0: from the same
            image.
    """

    pair_crop: Size
    pair_iou: tuple[float, float] = (0.1, 1.0)
    pair_stride: int = 8
    pair_scale: tuple[float, float] = (1.0, 1.0)
    pair_frames: int = 0


@dataclass(frozen=True)
class TargetCrops:
    """Draws unlabelled crops of the target.

    With `pair_frames` the second crop of a pair shows another moment of a video: our reading of
    the "samples from neighbouring frames" in the abstract of PiPa++ (arXiv 2407.17101). Motion
    between the frames is not compensated: keep `pair_frames` small. At the ends of a folder the
    nearest frame is taken, perhaps the same; if the frames differ in size, both crops are of one
    image. The crops lie where they would lie without `pair_frames`, and each crop's `valid` is that
    of its own frame.

    Args:
        images: The target.
        cutting: Geometry of the crops.
        pair: Geometry of the overlapping pair, cut from the same decoded image (except with
            `pair_frames`); None: no pair.
        target_margins: Pixels of the image at its edges that may not be trusted.
        target_crop_margins: Rows and columns of each crop that may not be trusted, wherever the
            crop lies.
    """

    images: Segmentation
    cutting: Cutting
    pair: PairCutting | None = None
    target_margins: Margins = (0, 0, 0, 0)
    target_crop_margins: Margins = (0, 0, 0, 0)

    def draw(self, rng: np.random.Generator) -> tuple[Unlabelled, CropPair | None]:
        """Choose an image, a crop of it, and the pair."""
        index = int(rng.integers(len(self.images)))
        sample = self.images.load(index)
        size, crop = self.cutting.fit(sample), self.cutting.crop
        corner = crops.draw_corner(rng, size, crop)
        target = _flip(self._cut(sample, size, corner, crop, crop), rng.random() < 0.5)
        top, bottom, left, right = self.target_crop_margins
        target.valid[:top] = target.valid[max(0, crop[0] - bottom) :] = False
        target.valid[:, :left] = target.valid[:, max(0, crop[1] - right) :] = False
        return target, None if self.pair is None else self._pair(rng, index, sample, self.pair)

    def _pair(
        self, rng: np.random.Generator, index: int, sample: Sample, how: PairCutting
    ) -> CropPair:
        """Cut both crops from one region: the overlap within one image is equal to the bit."""
        scale = float(rng.uniform(*how.pair_scale))
        crop = how.pair_crop
        size = Cutting(crop, self.cutting.resize, self.cutting.pad).fit(sample, scale)
        room = max(size[0], crop[0]), max(size[1], crop[1])
        corners = crops.draw_pair(rng, room, crop, how.pair_iou, how.pair_stride)
        if corners is None:
            raise PipaError(
                f"no two crops of {crop[0]}x{crop[1]} overlap by an IoU of {how.pair_iou[0]} to "
                f"{how.pair_iou[1]} in an image of {size[0]}x{size[1]}",
                sample.path,
                "Widen `pair_iou`, or choose a smaller `pair_crop`.",
            )
        corner = min(c[0] for c in corners), min(c[1] for c in corners)
        around = (
            max(c[0] for c in corners) + crop[0] - corner[0],
            max(c[1] for c in corners) + crop[1] - corner[1],
        )
        both = self._cut(sample, size, corner, around, around)
        flips = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        other = self._neighbour(rng, index, sample, how.pair_frames) if how.pair_frames else sample
        later = both if other is sample else self._cut(other, size, corner, around, around)
        first, second = (
            _flip(_part(region, (c[0] - corner[0], c[1] - corner[1]), crop), flip)
            for region, c, flip in zip((both, later), corners, flips, strict=True)
        )
        shift = corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]
        return CropPair(first, second, torch.tensor(shift), torch.tensor(flips))

    def _neighbour(
        self, rng: np.random.Generator, index: int, sample: Sample, pair_frames: int
    ) -> Sample:
        """Load a frame 1 to `pair_frames` files away; the same if there is none of its size."""
        steps = int(rng.integers(1, pair_frames + 1)) * (-1 if rng.random() < 0.5 else 1)
        chosen = self.images.neighbour(index, steps)
        other = sample if chosen == index else self.images.load(chosen)
        return other if other.image.shape == sample.image.shape else sample

    def _cut(
        self, sample: Sample, size: Size, corner: Corner, crop: Size, full: Size
    ) -> Unlabelled:
        image = crops.cut_image(sample.image, size, corner, crop)
        before = sample.image.shape[:2]
        valid = crops.cut_valid(self.target_margins, before, size, corner, crop)
        image, valid = crops.pad_image(image, full), crops.pad_plane(valid, full, 0)
        return Unlabelled(_tensor(image), _tensor(valid))


def _part(region: Unlabelled, corner: Corner, crop: Size) -> Unlabelled:
    place = slice(corner[0], corner[0] + crop[0]), slice(corner[1], corner[1] + crop[1])
    return Unlabelled(region.image[place], region.valid[place])


def _flip(crop: Unlabelled, flip: bool) -> Unlabelled:
    return Unlabelled(crop.image.flip(1), crop.valid.flip(1)) if flip else crop


def _tensor(array: np.ndarray) -> Tensor:
    """The same values as a tensor, which cannot hold NumPy's mirrored views."""
    return torch.from_numpy(np.ascontiguousarray(array))


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
        return Loaded(Batch(source, target, pair), skipped)

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
