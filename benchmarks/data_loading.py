"""Samples per second of full-size files, against the same pipeline done the plain way.

python benchmarks/data_loading.py [--workers 2] [--steps 30] [--images 12]

Plain, as in DAFormer's and PiPa's code: each access decodes the file, resizes all of it and crops;
a crop without enough of the rare class is another access; the overlapping pair comes from a loader
of its own. "keeping" is the plain pipeline with one concession: a further crop of a source image
is cut from the image decoded and resized already. Ours decodes an image once per item and resizes
what the crops need. The last columns compare what comes out: the share of pixels of six rare
classes, then mean and deviation of the images.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from pipa.batch import Batch, CropPair, Labelled, Unlabelled
from pipa.classes import CITYSCAPES
from pipa.data import crops
from pipa.data.dataset import Segmentation
from pipa.data.draws import Loaded
from pipa.data.labels import GTA5_IDS
from pipa.data.loading import Batches, EndlessBatchSampler, as_batch, collate
from pipa.data.module import UDAData
from pipa.data.rare_classes import RareClasses, class_counts
from pipa.errors import PipaError
from pipa.files.images import fit_size, write_png

SOURCE, TARGET = (1052, 1914), (1024, 2048)


@dataclass(frozen=True)
class Recipe:
    """A paper's sizes."""

    source: crops.Size
    target: crops.Size
    crop: int
    ratio: float
    pair: int


RECIPES = {
    "DAFormer": Recipe((720, 1280), (512, 1024), 512, 0.5, 480),
    "HRDA": Recipe((1440, 2560), (1024, 2048), 1024, 2.0, 720),
}


def write_files(root: Path, count: int) -> None:
    """GTA5 and Cityscapes at their sizes: mosaics of regions with texture and noise."""
    raw_ids = [raw for raw, own in GTA5_IDS.ids.items() if own < 19]
    shares = np.array([0.36, 0.08, 0.18, 0.02, 0.01, 0.012, 0.002, 0.001, 0.09, 0.03, 0.15])
    shares = np.append(shares, [0.004, 0.0005, 0.03, 0.013, 0.004, 0.0007, 0.0004, 0.0002])
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    for i in range(count):
        for name, size in (("gta5", SOURCE), ("cityscapes", TARGET)):
            rng = np.random.default_rng([i, size[0]])
            cells = rng.choice(19, (size[0] // 48 + 1, size[1] // 48 + 1), p=shares / shares.sum())
            train = cells.repeat(48, 0).repeat(48, 1)[: size[0], : size[1]]
            image = np.array(CITYSCAPES.colours)[train] + rng.normal(0, 12, (*size, 3))
            image = cv2.GaussianBlur(image.clip(0, 255).astype(np.uint8), (5, 5), 1)
            if name == "gta5":
                write(root / name / "images" / f"{i:05}.png", image)
                label = np.array(raw_ids)[train].astype(np.uint8)
                write(root / name / "labels" / f"{i:05}.png", label, palette)
            else:
                folder = root / name / "leftImg8bit" / "train" / "ulm"
                write(folder / f"ulm_{i:06}_leftImg8bit.png", image)


def write(path: Path, array: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write a PNG and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, array, palette)


@dataclass(frozen=True)
class Plain:
    """Items of the plain pipeline, by the same rules as ours."""

    source: Segmentation
    target: Segmentation
    rare: RareClasses
    recipe: Recipe
    keeping: bool

    def __getitem__(self, number: int) -> Loaded | PipaError:
        """Decode, resize all, crop; again for each further crop and for the pair."""
        rng = np.random.default_rng([1, number])
        index, wanted, pixels = self.rare.draw(rng)
        kept = self._resized_source(index)
        for attempt in range(1 + crops.ATTEMPTS):
            if attempt and not self.keeping:
                kept = self._resized_source(index)
            image, label = self._crop(rng, *kept)
            if np.count_nonzero(label == wanted) > pixels * self.recipe.ratio:
                break
        source = Labelled(tensor(image), tensor(label))
        return Loaded(Batch(source, self._target(rng), self._pair(rng)), [])

    def _resized_source(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.source.load(index)
        size = fit_size(sample.image.shape[:2], self.recipe.source)
        label = cv2.resize(sample.label, size[::-1], interpolation=cv2.INTER_NEAREST)
        return cv2.resize(sample.image, size[::-1]), label

    def _crop(
        self, rng: np.random.Generator, image: np.ndarray, label: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        crop = (self.recipe.crop, self.recipe.crop)

        def somewhere() -> crops.Crop:
            corner = crops.draw_corner(rng, label.shape, crop)
            return corner, cut(label, corner, crop)

        corner, part = crops.pick_varied(somewhere, 0.75)
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        return cut(image, corner, crop)[:, flip], part[:, flip]

    def _resized_target(self, rng: np.random.Generator) -> np.ndarray:
        sample = self.target.load(int(rng.integers(len(self.target))))
        size = fit_size(sample.image.shape[:2], self.recipe.target)
        return np.asarray(cv2.resize(sample.image, size[::-1]))

    def _target(self, rng: np.random.Generator) -> Unlabelled:
        image, crop = self._resized_target(rng), (self.recipe.crop, self.recipe.crop)
        part = cut(image, crops.draw_corner(rng, image.shape[:2], crop), crop)
        part = tensor(part[:, :: -1 if rng.random() < 0.5 else 1])
        return Unlabelled(part, torch.ones(crop, dtype=torch.bool))

    def _pair(self, rng: np.random.Generator) -> CropPair:
        image, crop = self._resized_target(rng), (self.recipe.pair, self.recipe.pair)
        corners = crops.draw_pair(rng, image.shape[:2], crop, (0.1, 1.0), 8)
        assert corners is not None
        flips = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
        first, second = (
            Unlabelled(
                tensor(cut(image, c, crop)[:, :: -1 if flip else 1]),
                torch.ones(crop, dtype=torch.bool),
            )
            for c, flip in zip(corners, flips, strict=True)
        )
        shift = corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]
        return CropPair(first, second, torch.tensor(shift), torch.tensor(flips))


def tensor(array: np.ndarray) -> torch.Tensor:
    """The same values as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(array))


def cut(array: np.ndarray, corner: crops.Corner, crop: crops.Size) -> np.ndarray:
    """A part of an array."""
    return array[corner[0] : corner[0] + crop[0], corner[1] : corner[1] + crop[1]]


def ours(root: Path, recipe: Recipe, workers: int) -> Iterator[Batch]:
    """Batches of `UDAData`."""
    data = UDAData(
        f"gta5:{root}/gta5",
        f"cityscapes:{root}/cityscapes",
        crop=recipe.crop,
        source_resize=recipe.source,
        target_resize=recipe.target,
        min_crop_ratio=recipe.ratio,
        pair_crop=recipe.pair,
        workers=workers,
        cache=False,
    )
    data.setup("fit")
    return iter(data.train_dataloader())


def plain(root: Path, recipe: Recipe, workers: int, keeping: bool = False) -> Iterator[Batch]:
    """Batches of the plain pipeline."""
    data = UDAData(f"gta5:{root}/gta5", f"cityscapes:{root}/cityscapes", cache=False)
    _, source, target, _ = data._opened
    assert target is not None
    rare = RareClasses(class_counts(source, CITYSCAPES.names), 0.01)
    loader: DataLoader[Loaded] = DataLoader(
        Plain(source, target, rare, recipe, keeping),  # type: ignore[arg-type]
        batch_sampler=EndlessBatchSampler(0, 2),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
    )
    return iter(Batches(loader, as_batch, torch.device("cpu"), []))


WAYS = {"plain": plain, "keeping": partial(plain, keeping=True), "ours": ours}


def measure(batches: Iterator[Batch], steps: int) -> tuple[float, list[float]]:
    """Items per second after a warm-up, and figures of what they show."""
    list(islice(batches, 4))
    since, shown = time.perf_counter(), []
    for batch in islice(batches, steps):
        assert batch.target is not None
        shown.append(
            [
                float((batch.source.label.unsqueeze(-1) == torch.tensor([6, 7, 12, 16, 17, 18]))
                .float().mean() * 6),
                float(batch.source.image.mean()),
                float(batch.source.image.std()),
                float(batch.target.image.mean()),
                float(batch.target.image.std()),
            ]
        )  # fmt: skip
    return 2 * steps / (time.perf_counter() - since), np.mean(shown, axis=0).tolist()


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--images", type=int, default=12)
    options = parser.parse_args()
    table = Table("recipe", "pipeline", "samples/s", "ratio", "rare", "source", "", "target", "")
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), options.images)
        for name, recipe in RECIPES.items():
            slowest = 0.0
            for way, begin in WAYS.items():
                batches = begin(Path(folder), recipe, options.workers)
                rate, figures = measure(batches, options.steps)
                slowest = slowest or rate
                shown = [f"{figure:.3f}" for figure in figures]
                table.add_row(name, way, f"{rate:.1f}", f"{rate / slowest:.2f}", *shown)
                del batches
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
