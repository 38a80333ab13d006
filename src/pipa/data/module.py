"""`UDAData`: what one training reads, from options to batches on the device."""

import copy
import logging
from collections import Counter
from functools import cached_property, partial
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from pipa.batch import Batch, Labelled, Needs
from pipa.classes import LabelSpace
from pipa.data.bounds import BOUNDED, check_bounds, check_pair, default_pair
from pipa.data.crops import height_and_width
from pipa.data.cutting import Cutting
from pipa.data.dataset import Domains, open_domains, spread_indices
from pipa.data.draws import Draws, SourceCrops
from pipa.data.loading import (
    Batches,
    EndlessBatchSampler,
    ValidationSet,
    as_batch,
    as_labelled,
    collate,
    outlive_first_sigterm,
)
from pipa.data.rare_classes import rare_classes
from pipa.data.target_crops import PairCutting, TargetCrops
from pipa.errors import PipaError
from pipa.files.threads import available_cores

log = logging.getLogger(__name__)


class UDAData(L.LightningDataModule):
    """A labelled source, an unlabelled target, and labelled images to validate on.

    A data set is `[FORMAT[/SPLIT]:]PATH`; `pipa data --help` lists the formats, and
    `pipa.data.data_sets` says how to add one. Labels of the target are never opened.

    Batch t holds draws `t * batch_size` and following, each a function of `seed` and its number.

    Args:
        source: Labelled images to learn from.
        target: Images to adapt to; None: source only.
        validation: Labelled images of the target domain, scored as they are (after
            `target_resize`); None: no validation.
        format: Format of the data sets that do not say theirs.
        classes: The run's classes: a classes.yaml, "cityscapes", or names separated by commas.
            None: those of the source.
        crop: Height and width of the crops, or one number for both (DAFormer 512, HRDA 1024).
        batch_size: Source images, and target images, per step and device.
        workers: Processes that load, at most one per core; 0: the training process itself.
        source_resize: Scale source images to fit into these two sides first, in either order
            (DAFormer 1280x720, HRDA 2560x1440). None: leave them as they are.
        target_resize: The same for the target and validation (1024x512, 2048x1024).
        rare_class_temperature: T of rare class sampling (papers: 0.01). None: each source image
            is equally likely.
        min_pixels: How many pixels of the rare class an image must have (papers: 3000). None: 3000,
            fewer for images smaller than GTA5's.
        min_crop_ratio: The crop must have this times `min_pixels` of the rare class, or another
            crop is drawn, up to 10 times (DAFormer 0.5, HRDA 2.0).
        cat_max_ratio: Greatest share of one class in a source crop (papers: 0.75).
        pair_from: Where the two overlapping target crops of PiPa's patch loss are cut: crop, both
            lie in the target crop and share its pixels and pseudo-labels; image, on their own, as
            in the release.
        pair_crop: Height and width, or one number, of both (release: 720). None: 0.7 of `crop`, or
            with `pair_from: image` all of it.
        pair_iou: Bounds of the intersection over union of the two crops (release: 0.1, 1).
        pair_stride: The corners of the two crops differ by multiples of this (release: 8).
        pair_scale: Bounds of a further scale of the image, with `pair_from: image`.
        pair_frames: For videos, with `pair_from: image`: the second crop is cut from another frame,
            drawn up to this many files before or after, at the overlapping place (our reading of
            PiPa++, arXiv 2407.17101; see `TargetCrops`). Each folder must hold one sequence whose
            names sort by time. 0: both crops are cut from one image.
        pair_motion: "flow": places of the two frames are matched by the target's optical flow (see
            docs/your_photos.md); "none": as if nothing had moved.
        target_margins: Pixels at the image's top, bottom, left, right without pseudo-labels (HRDA
            on Cityscapes: 30, 240, 30, 30).
        target_crop_margins: The same in each crop, wherever it lies (DAFormer: 15, 120, 0, 0).
        pad: Fill up images that are smaller than the crop instead of refusing them. A style
            (`method.style`) takes the colour of the filling for the image's own.
        cache: Keep decoded images in memory; "auto": if they need less than 1 GiB.
        on_error: "stop" at a faulty file, or "skip" it; `skipped` lists those that were skipped.
        seed: Decides every draw.

    Raises:
        PipaError: An option has an impossible value.
    """

    def __init__(
        self,
        source: str,
        target: str | None = None,
        validation: str | None = None,
        *,
        format: str = "folder",
        classes: str | None = None,
        crop: int | tuple[int, int] = 512,
        batch_size: int = 2,
        workers: int = 4,
        source_resize: tuple[int, int] | None = None,
        target_resize: tuple[int, int] | None = None,
        rare_class_temperature: float | None = 0.01,
        min_pixels: int | None = None,
        min_crop_ratio: float = 0.5,
        cat_max_ratio: float = 0.75,
        pair_from: Literal["crop", "image"] = "crop",
        pair_crop: int | tuple[int, int] | None = None,
        pair_iou: tuple[float, float] = (0.1, 1.0),
        pair_stride: int = 8,
        pair_scale: tuple[float, float] = (1.0, 1.0),
        pair_frames: int = 0,
        pair_motion: Literal["none", "flow"] = "none",
        target_margins: tuple[int, int, int, int] = (0, 0, 0, 0),
        target_crop_margins: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad: bool = False,
        cache: bool | Literal["auto"] = "auto",
        on_error: Literal["stop", "skip"] = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.target, self.validation = source, target, validation
        self.format, self.classes = format, classes
        self.crop = height_and_width(crop)
        self.batch_size = batch_size
        self.workers = min(workers, available_cores())  # torch warns of more
        self.source_resize, self.target_resize = source_resize, target_resize
        self.rare_class_temperature, self.min_pixels = rare_class_temperature, min_pixels
        self.min_crop_ratio, self.cat_max_ratio = min_crop_ratio, cat_max_ratio
        self.pair_from: Literal["crop", "image"] = pair_from
        self.pair_crop = None if pair_crop is None else height_and_width(pair_crop)
        self.pair_iou, self.pair_stride = (pair_iou[0], pair_iou[1]), pair_stride
        self.pair_scale, self.pair_frames = pair_scale, pair_frames
        self.pair_motion: Literal["none", "flow"] = pair_motion
        self.target_margins, self.target_crop_margins = target_margins, target_crop_margins
        self.cache, self.on_error, self.seed = cache, on_error, seed
        for name in BOUNDED:
            check_bounds(name, getattr(self, name))
        check_pair(self.pair_from, self.pair_crop, self.crop, pair_scale, pair_frames, pair_motion)
        self.source_cutting = Cutting(self.crop, source_resize, pad)
        self.target_cutting = Cutting(self.crop, target_resize, pad)
        self.skipped: list[PipaError] = []
        """One error for each file that was skipped so far, with `on_error: skip`."""

    @property
    def skippable(self) -> list[PipaError] | None:
        """The list that faulty files are added to; None: a fault ends the run."""
        return self.skipped if self.on_error == "skip" else None

    @property
    def labels(self) -> LabelSpace:
        """The classes of the run."""
        return self._opened.labels

    def answer(self, needs: Needs) -> "UDAData":
        """Give a method exactly what it needs.

        Args:
            needs: What the method looks at; a pair is cut from target images.

        Returns:
            A copy, which shares the list `skipped`.

        Raises:
            PipaError: The method needs target images, and none are given.
        """
        needs_target = needs.target or needs.pair
        if needs_target and self.target is None:
            raise PipaError(
                "the method needs target images, and none are given",
                "--data.target",
                "Give a folder of images, or a method that needs none (--method.name source_only "
                "without target terms).",
            )
        answered = copy.copy(self)
        vars(answered).pop("_opened", None)  # it may hold a target that is not needed
        answered.target = self.target if needs_target else None
        default = default_pair(self.pair_from, self.crop, self.pair_stride)
        answered.pair_crop = (self.pair_crop or default) if needs.pair else None
        if not needs.rare_classes:
            answered.rare_class_temperature = None
        return answered

    def setup(self, stage: str | None = None) -> None:
        """List the files and look at a few of them, so that a wrong option fails at once.

        Raises:
            PipaError: A data set is missing or faulty, or a crop is larger than an image.
        """
        _, source, target, validation = self._opened
        if self.trainer is not None and validation is None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty loader
        if stage not in (None, "fit"):
            return
        self._target_crops()  # fails where the target lacks what its pair needs
        if self.on_error == "skip":
            return
        for index in spread_indices(source):
            self.source_cutting.fit(source.load(index))
        if target is not None:
            for index in spread_indices(target):
                self.target_cutting.fit(target.load(index))
        if validation is not None:
            validation.load(0)

    def train_dataloader(self) -> Batches[Batch]:
        """Return batches without end, from the step that the trainer has reached."""
        draws = Draws(self._source_crops(), self._target_crops(), self.seed, self.on_error)
        rank, processes = self._share
        step = 0 if self.trainer is None else self.trainer.global_step
        start = step * self.batch_size * processes
        numbers = EndlessBatchSampler(start, self.batch_size, rank, processes)
        ready = partial(as_batch, pair_crop=self.pair_crop)
        return Batches(self._loader(draws, numbers), ready, self._device, self.skipped)

    def val_dataloader(self) -> Batches[Labelled] | list[Any]:
        """Return whole labelled images, one at a time; each process has its share, at least one."""
        validation = self._opened.validation
        if validation is None:
            return []
        rank, processes = self._share
        if len(validation) < processes:
            problem = f"has {len(validation)} images for {processes} processes"
            raise PipaError(problem, "--data.validation", "Use fewer devices.")
        images = ValidationSet(validation, self.target_resize, self.on_error == "skip")
        numbers = [[i] for i in range(rank, len(images), processes)]
        return Batches(self._loader(images, numbers), as_labelled, self._device, self.skipped)

    def teardown(self, stage: str | None = None) -> None:
        """Warn at the end of files that were skipped."""
        faults = Counter(str(error) for error in self.skipped)
        if stage == "fit" and faults:
            log.warning(
                "skipped %d times, %d faulty files:\n%s",
                faults.total(),
                len(faults),
                "\n".join(f"{count}x {fault}" for fault, count in sorted(faults.items())),
            )

    @cached_property
    def _opened(self) -> Domains:
        return open_domains(
            self.source,
            self.target,
            self.validation,
            format=self.format,
            classes=self.classes,
            cache=self.cache,
            workers=self.workers,
            skipped=self.skippable,
        )

    def _source_crops(self) -> SourceCrops:
        labels, source, _, _ = self._opened
        rare = None
        if self.rare_class_temperature is not None:
            how = self.rare_class_temperature, self.min_pixels, self.skippable
            rare = rare_classes(source, labels.names, *how)
        return SourceCrops(
            source, self.source_cutting, self.cat_max_ratio, rare, self.min_crop_ratio
        )

    def _target_crops(self) -> TargetCrops | None:
        target, pair = self._opened.target, None
        if target is None:
            return None
        if self.pair_crop is not None:
            how = self.pair_iou, self.pair_stride, self.pair_scale, self.pair_frames
            pair = PairCutting(self.pair_from, self.pair_crop, *how, self.pair_motion)
        margins = self.target_margins, self.target_crop_margins
        return TargetCrops(target, self.target_cutting, pair, *margins)

    def _loader(self, data: Any, numbers: Any) -> "DataLoader[Any]":
        return DataLoader(
            data,
            batch_sampler=numbers,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
            persistent_workers=self.workers > 0,
            # Outside of a training nobody saves a step, and a script must be able to end them.
            worker_init_fn=None if self.trainer is None else outlive_first_sigterm,
        )

    @property
    def _share(self) -> tuple[int, int]:
        """This process's number, and the number of processes."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    @property
    def _device(self) -> torch.device:
        trainer = self.trainer
        return torch.device("cpu") if trainer is None else trainer.strategy.root_device
