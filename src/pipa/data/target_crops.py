"""The random crops of a target image: one to adapt to, and two that overlap."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pipa.batch import CropPair, PairPlace, Unlabelled
from pipa.data import crops
from pipa.data.crops import Corner, Size
from pipa.data.cutting import Cutting, Margins, as_tensor
from pipa.data.dataset import Sample, Segmentation
from pipa.data.motion import motion, refuse_without_flow
from pipa.errors import PipaError


@dataclass(frozen=True)
class PairCutting:
    """How the two overlapping crops of a target image are cut.

    Args:
        pair_from: "crop": both lie in the target crop, so that its pixels and its pseudo-labels are
            theirs, too; "image": they are cut from the image on their own, as in the release.
        pair_crop: Height and width of both.
        pair_iou: Bounds of their intersection over union.
        pair_stride: Their corners differ by multiples of it.
        pair_scale: Bounds of a factor on the target's size, drawn for each pair from the image.
        pair_frames: The second crop is cut from another frame of the same folder, at most so many
            files before or after, at the overlapping place; see `TargetCrops`. 0: from the same
            image.
        pair_motion: "flow": the pair knows the true motion between its frames, from the target's
            optical flow; "none": it is taken as if nothing had moved.
    """

    pair_from: Literal["crop", "image"]
    pair_crop: Size
    pair_iou: tuple[float, float] = (0.1, 1.0)
    pair_stride: int = 8
    pair_scale: tuple[float, float] = (1.0, 1.0)
    pair_frames: int = 0
    pair_motion: Literal["none", "flow"] = "none"


@dataclass(frozen=True)
class TargetCrops:
    """Draws unlabelled crops of the target.

    With `pair_frames` the second crop of a pair shows another moment of a video: our reading of
    the "samples from neighbouring frames" in the abstract of PiPa++ (arXiv 2407.17101). Without
    `pair_motion` motion between the frames is not compensated: keep `pair_frames` small. At the
    ends of a folder the nearest frame is taken, perhaps the same; if the frames differ in size,
    both crops are of one image. The crops lie where they would lie without `pair_frames`, and each
    crop's `valid` is that of its own frame.

    Args:
        images: The target.
        cutting: Geometry of the crops.
        pair: Geometry of the overlapping pair; None: no pair.
        target_margins: Pixels of the image at its edges that may not be trusted.
        target_crop_margins: Rows and columns of each crop that may not be trusted, wherever the
            crop lies.
    """

    images: Segmentation
    cutting: Cutting
    pair: PairCutting | None = None
    target_margins: Margins = (0, 0, 0, 0)
    target_crop_margins: Margins = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        """Refuse `pair_motion: flow` for a target without flow."""
        if self.pair is not None and self.pair.pair_motion == "flow":
            refuse_without_flow(self.images)

    def draw(self, rng: np.random.Generator) -> tuple[Unlabelled, CropPair | PairPlace | None]:
        """Choose an image, a crop of it, and the pair or its place in that crop."""
        index = int(rng.integers(len(self.images)))
        sample = self.images.load(index)
        size, crop = self.cutting.fit(sample), self.cutting.crop
        corner = crops.draw_corner(rng, size, crop)
        target = _flip(self._cut(sample, size, corner, crop, crop), rng.random() < 0.5)
        top, bottom, left, right = self.target_crop_margins
        target.valid[:top] = target.valid[max(0, crop[0] - bottom) :] = False
        target.valid[:, :left] = target.valid[:, max(0, crop[1] - right) :] = False
        if self.pair is None:
            return target, None
        if self.pair.pair_from == "crop":
            corners, flips = self._places(rng, crop, sample, self.pair)
            return target, PairPlace(torch.tensor(corners), torch.tensor(flips))
        return target, self._pair(rng, index, sample, self.pair)

    def _places(
        self, rng: np.random.Generator, room: Size, sample: Sample, how: PairCutting
    ) -> tuple[tuple[Corner, Corner], tuple[bool, bool]]:
        """Draw where two overlapping crops lie, and whether each is mirrored."""
        crop, (least, greatest) = how.pair_crop, how.pair_iou
        corners = crops.draw_pair(rng, room, crop, how.pair_iou, how.pair_stride)
        if corners is None:
            raise PipaError(
                f"no two crops of {crop[0]}x{crop[1]} overlap by an IoU of {least} to {greatest} "
                f"in {'a crop' if how.pair_from == 'crop' else 'an image'} of {room[0]}x{room[1]}",
                sample.path,
                "Widen `pair_iou`, or choose a smaller `pair_crop`.",
            )
        return corners, (bool(rng.random() < 0.5), bool(rng.random() < 0.5))

    def _pair(
        self, rng: np.random.Generator, index: int, sample: Sample, how: PairCutting
    ) -> CropPair:
        """Cut both crops from one region: the overlap within one image is equal to the bit."""
        scale = float(rng.uniform(*how.pair_scale))
        crop = how.pair_crop
        size = Cutting(crop, self.cutting.resize, self.cutting.pad).fit(sample, scale)
        room = max(size[0], crop[0]), max(size[1], crop[1])
        corners, flips = self._places(rng, room, sample, how)
        corner = min(c[0] for c in corners), min(c[1] for c in corners)
        around = (
            max(c[0] for c in corners) + crop[0] - corner[0],
            max(c[1] for c in corners) + crop[1] - corner[1],
        )
        both = self._cut(sample, size, corner, around, around)
        chosen, other = self._neighbour(rng, index, sample, how.pair_frames)
        later = both if other is sample else self._cut(other, size, corner, around, around)
        first, second = (
            _flip(_part(region, (c[0] - corner[0], c[1] - corner[1]), crop), flip)
            for region, c, flip in zip((both, later), corners, flips, strict=True)
        )
        shift = corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]
        flow = None
        if how.pair_motion == "flow":
            moved = motion(self.images, index, chosen, sample.image.shape[:2])
            flow = as_tensor(crops.cut_flow(moved, size, corners[0], crop).transpose(2, 0, 1))
        return CropPair(first, second, torch.tensor(shift), torch.tensor(flips), flow=flow)

    def _neighbour(
        self, rng: np.random.Generator, index: int, sample: Sample, pair_frames: int
    ) -> tuple[int, Sample]:
        """Load a frame 1 to `pair_frames` files away; the same if there is none of its size."""
        if not pair_frames:
            return index, sample
        steps = int(rng.integers(1, pair_frames + 1)) * (-1 if rng.random() < 0.5 else 1)
        chosen = self.images.neighbour(index, steps)
        other = sample if chosen == index else self.images.load(chosen)
        return (chosen, other) if other.image.shape == sample.image.shape else (index, sample)

    def _cut(
        self, sample: Sample, size: Size, corner: Corner, crop: Size, full: Size
    ) -> Unlabelled:
        image = crops.cut_image(sample.image, size, corner, crop)
        before = sample.image.shape[:2]
        valid = crops.cut_valid(self.target_margins, before, size, corner, crop)
        image, valid = crops.pad_image(image, full), crops.pad_plane(valid, full, 0)
        return Unlabelled(as_tensor(image), as_tensor(valid))


def _part(region: Unlabelled, corner: Corner, crop: Size) -> Unlabelled:
    place = slice(corner[0], corner[0] + crop[0]), slice(corner[1], corner[1] + crop[1])
    return Unlabelled(region.image[place], region.valid[place])


def _flip(crop: Unlabelled, flip: bool) -> Unlabelled:
    return Unlabelled(crop.image.flip(1), crop.valid.flip(1)) if flip else crop
