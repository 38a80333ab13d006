"""`UDAData`: what one training reads, from options to batches on the device."""

import copy
import logging
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader

from pipa.batch import Batch, Labelled, Needs
from pipa.classes import LabelSpace
from pipa.data.crops import Size
from pipa.data.dataset import (
    Segmentation,
    in_classes,
    is_small,
    open_labelled,
    run_table,
    spread_indices,
)
from pipa.data.draws import Cutting, Draws, Margins, PairCutting, SourceCrops, TargetCrops
from pipa.data.find import find
from pipa.data.labels import ClassTable
from pipa.data.loading import (
    Batches,
    Numbers,
    Whole,
    as_batch,
    as_labelled,
    collate,
)
from pipa.data.rare_classes import RareClasses, absent, class_counts
from pipa.errors import PipaError

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
        workers: Processes that load; 0: the training process itself.
        source_resize: Scale source images to fit into these two sides first, in either order
            (DAFormer 1280x720, HRDA 2560x1440). None: as they are.
        target_resize: The same for the target and validation (1024x512, 2048x1024).
        rare_class_temperature: T of rare class sampling (papers: 0.01). None: each source image
            is equally likely.
        min_pixels: Pixels of the rare class that an image must have (papers: 3000). None: 3000,
            less for images smaller than GTA5's.
        min_crop_ratio: Times `min_pixels`: what the crop must have of it, or another crop is
            drawn, up to 10 times (DAFormer 0.5, HRDA 2.0).
        cat_max_ratio: Greatest share of one class in a source crop (papers: 0.75).
        pair_crop: Height and width, or one number, of two overlapping target crops for PiPa's
            patch loss (release: 720). None: no pair; `pipa train` makes them as large as `crop`
            for losses that want them.
        pair_iou: Bounds of their intersection over union (release: 0.1, 1).
        pair_stride: Their corners differ by multiples of this (release: 8).
        pair_scale: Bounds of a further scale of the image that they are cut from.
        pair_frames: For videos: the second crop is cut from another frame, drawn up to this many
            files before or after, at the overlapping place, so that the pair shows two moments. It
            is our reading of the "samples from neighbouring frames" in the abstract of PiPa++
            (arXiv 2407.17101). Motion between the frames is not compensated: keep it small. Each
            folder must hold one sequence whose names sort by time; at its ends the nearest frame
            is taken, perhaps the same, and where sizes differ, the same. Each crop's `valid` is
            that of its own frame. 0: both from one image.
        target_margins: Pixels at the image's top, bottom, left, right without pseudo-labels (HRDA
            on Cityscapes: 30, 240, 30, 30).
        target_crop_margins: The same in each crop, wherever it lies (DAFormer: 15, 120, 0, 0).
        pad: Fill up images smaller than the crop instead of refusing them.
        cache: Keep decoded images in memory; "auto": where they need less than 1 GiB.
        on_error: "stop" at a faulty file, or "skip" it; `skipped` lists them.
        with_target: False leaves the target out of the batches: a baseline with the same options.
        seed: Decides every draw.

    Raises:
        PipaError: A number is too small.
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
        pair_crop: int | tuple[int, int] | None = None,
        pair_iou: tuple[float, float] = (0.1, 1.0),
        pair_stride: int = 8,
        pair_scale: tuple[float, float] = (1.0, 1.0),
        pair_frames: int = 0,
        target_margins: tuple[int, int, int, int] = (0, 0, 0, 0),
        target_crop_margins: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad: bool = False,
        cache: bool | Literal["auto"] = "auto",
        on_error: Literal["stop", "skip"] = "stop",
        with_target: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _refuse_below(
            {
                "crop": (min(_both(crop)), 1),
                "batch_size": (batch_size, 1),
                "workers": (workers, 0),
                "pair_crop": (min(_both(1 if pair_crop is None else pair_crop)), 1),
                "pair_stride": (pair_stride, 1),
                "pair_frames": (pair_frames, 0),
                "target_margins": (min(target_margins), 0),
                "target_crop_margins": (min(target_crop_margins), 0),
                "seed": (seed, 0),
            }
        )
        self.source, self.target, self.validation = source, target, validation
        self.format, self.classes = format, classes
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.on_error, self.cache, self.with_target = on_error, cache, with_target
        self.source_cutting = Cutting(_both(crop), source_resize, pad)
        self.target_cutting = Cutting(_both(crop), target_resize, pad)
        self.usual_pair = PairCutting(
            _both(pair_crop or crop), pair_iou, pair_stride, pair_scale, pair_frames
        )
        """How pairs are cut where a method wants them and `pair_crop` is None."""
        self.pair_cutting = None if pair_crop is None else self.usual_pair
        self.margins: tuple[Margins, Margins] = (target_margins, target_crop_margins)
        self.temperature, self.min_pixels = rare_class_temperature, min_pixels
        self.cat_max_ratio, self.min_crop_ratio = cat_max_ratio, min_crop_ratio
        self.skipped: list[PipaError] = []
        """Files that were passed over so far, with `on_error: skip`."""

    @property
    def labels(self) -> LabelSpace:
        """The classes of the run."""
        return self._opened[0].labels

    def answer(self, needs: Needs) -> "UDAData":
        """The same data, yielding exactly what a method needs.

        Raises:
            PipaError: It needs target images, and there are none.
        """
        if needs.target and self.target is None:
            raise PipaError(
                "the method needs target images",
                "--data.target",
                "Give a folder of images, or take --method.name source_only without target terms.",
            )
        same = copy.copy(self)
        same.with_target = needs.target
        if not needs.rare_classes:
            same.temperature = None
        same.pair_cutting = (same.pair_cutting or same.usual_pair) if needs.pair else None
        return same

    def setup(self, stage: str | None = None) -> None:
        """List the files and look at a few of them, so that a wrong option fails at once.

        Raises:
            PipaError: Something is not as it should be.
        """
        _, source, target, validation = self._opened
        if self.trainer is not None and validation is None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty loader
        if stage not in (None, "fit") or self.on_error == "skip":
            return
        for index in spread_indices(source):
            self.source_cutting.fit(source.load(index))
        for index in spread_indices(target) if target is not None else ():
            assert target is not None
            self.target_cutting.fit(target.load(index))
        if validation is not None:
            validation.load(0)

    def train_dataloader(self) -> Batches[Batch]:
        """Batches without end, from the step that the trainer has reached."""
        draws = Draws(self._source_crops(), self._target_crops(), self.seed, self.on_error)
        rank, world, step = 0, 1, 0
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            step = self.trainer.global_step
        start = step * self.batch_size * world
        numbers = Numbers(start, self.batch_size, rank, world)
        return Batches(self._loader(draws, numbers), as_batch, self._device, self.skipped)

    def val_dataloader(self) -> Batches[Labelled] | list[Any]:
        """Whole labelled images, one at a time; each process has its share of them."""
        validation = self._opened[3]
        if validation is None:
            return []
        trainer = self.trainer
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        whole = Whole(validation, self.target_cutting.resize, self.on_error == "skip")
        numbers = [[i] for i in range(rank, len(whole), world)]
        return Batches(self._loader(whole, numbers), as_labelled, self._device, self.skipped)

    def teardown(self, stage: str | None = None) -> None:
        """Say at the end what was passed over."""
        faults = Counter(str(error) for error in self.skipped)
        if stage == "fit" and faults:
            log.warning(
                "skipped %d times, %d faulty files:\n%s",
                faults.total(),
                len(faults),
                "\n".join(f"{count}x {fault}" for fault, count in sorted(faults.items())),
            )

    @cached_property
    def _opened(
        self,
    ) -> tuple[ClassTable, Segmentation, Segmentation | None, Segmentation | None]:
        """The run's classes; source, target, validation."""
        source = find(self.source, "source", self.format)
        target = validation = None
        if self.target is not None and self.with_target:
            target = find(self.target, "target", self.format)
        if self.validation is not None:
            validation = find(self.validation, "validation", self.format)
        run = run_table(source, self.classes)
        files = [f for f in (source, target, validation) if f is not None]
        keep = is_small(files, self.workers) if self.cache == "auto" else self.cache
        return (
            run,
            in_classes(source, run, cache=keep),
            None if target is None else in_classes(target, run, cache=keep),
            None if validation is None else in_classes(validation, run, cache=keep),
        )

    def _source_crops(self) -> SourceCrops:
        run, source, _, _ = self._opened
        rare = None
        if self.temperature is not None:
            skipped = self.skipped if self.on_error == "skip" else None
            counts = class_counts(source, run.labels.names, skipped)
            if missing := absent(counts, run.labels.names):
                log.warning("the source has no pixel of: %s", ", ".join(missing))
            rare = RareClasses(counts, self.temperature, self.min_pixels)
        return SourceCrops(
            source, self.source_cutting, self.cat_max_ratio, rare, self.min_crop_ratio
        )

    def _target_crops(self) -> TargetCrops | None:
        target = self._opened[2]
        if target is None:
            return None
        return TargetCrops(target, self.target_cutting, self.pair_cutting, *self.margins)

    def _loader(self, data: Any, numbers: Any) -> "DataLoader[Any]":
        return DataLoader(
            data,
            batch_sampler=numbers,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
            persistent_workers=self.workers > 0,
        )

    @property
    def _device(self) -> torch.device:
        trainer = self.trainer
        return torch.device("cpu") if trainer is None else trainer.strategy.root_device


def labelled_images(
    data: str, classes: str | None = None, *, resize: Size | None = None, workers: int = 0
) -> tuple[Batches[Labelled], LabelSpace]:
    """Labelled images, one at a time, and their classes; to score a model on them.

    Args:
        data: `[FORMAT[/SPLIT]:]PATH`.
        classes: The classes to speak of; None: the data set's own.
        resize: Scale images and labels to fit into this; None: as they are.
        workers: Processes that load.

    Raises:
        PipaError: A file is not where it should be, or (later) unreadable.
    """
    images, labels = open_labelled(data, classes)
    loader: DataLoader[Any] = DataLoader(
        Whole(images, resize, skip=False),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
    )
    return Batches(loader, as_labelled, torch.device("cpu"), []), labels


def _both(sides: int | tuple[int, int]) -> Size:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def _refuse_below(least: Mapping[str, tuple[int, int]]) -> None:
    """Complain of an option that is below the least it can be.

    Args:
        least: Value and least value of each option.
    """
    for name, (value, bound) in least.items():
        if value < bound:
            raise PipaError(f"is {value}; expected at least {bound}", f"--data.{name}")
