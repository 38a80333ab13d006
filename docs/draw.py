"""Draws the pictures of docs/how_it_works.md from Streets, with the functions that training uses.

python docs/draw.py [SOURCE_ONLY_RUN ADAPTED_RUN]

The features before and after need two finished runs, such as two rows of `pipa ablate`.
"""

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import pipa
from pipa.classes import CITYSCAPES
from pipa.data.crops import draw_pair
from pipa.evaluation.examine import examine
from pipa.files.plain_yaml import read_yaml
from pipa.losses.pixel_contrast import sample_anchors
from pipa.streets import street

HERE = Path(__file__).parent
SIZE = {"height": 192, "width": 384}
CROP, PAIR, STRIDE = 160, 104, 4
COLOURS = ("#ff8c00", "#1e90ff")


def draw_pair_figure(file: Path) -> None:
    """Draw the target crop with its two overlapping crops, and places that both of them show."""
    image, _ = street(12, "camera", **SIZE)
    top, left = 16, 120
    rng = np.random.default_rng(6)
    corners = draw_pair(rng, (CROP, CROP), (PAIR, PAIR), (0.2, 0.5), 8)
    assert corners is not None
    first, second = corners
    lowest = np.maximum(first, second)
    highest = np.minimum(first, second) + PAIR
    share = np.array([[0.25, 0.25], [0.3, 0.75], [0.75, 0.3], [0.7, 0.8]])
    places = lowest + share * (highest - lowest)

    figure, axes = plt.subplots(
        1, 3, figsize=(11, 3.1), gridspec_kw={"width_ratios": [2, 1, 1]}, layout="constrained"
    )
    show(axes[0], image, "a target image and the target crop")
    axes[0].add_patch(Rectangle((left, top), CROP, CROP, fill=False, ec="white", lw=2))
    jitter = ((1.15, 0.9, 0.85), (0.75, 0.9, 1.2))
    for i, (corner, colour) in enumerate(zip(corners, COLOURS, strict=True)):
        y, x = corner[0] + top, corner[1] + left
        axes[0].add_patch(Rectangle((x, y), PAIR, PAIR, fill=False, ec=colour, lw=2))
        crop = np.clip(image[y : y + PAIR, x : x + PAIR] * np.array(jitter[i]), 0, 255)
        crop = crop.astype(np.uint8)
        mirrored = i == 1
        show(axes[i + 1], crop[:, ::-1] if mirrored else crop, "mirrored" if mirrored else "as is")
        for side in axes[i + 1].spines.values():
            side.set(visible=True, color=colour, linewidth=3)
        for number, (row, column) in enumerate(places - corner, start=1):
            across = PAIR - 1 - column if mirrored else column
            mark(axes[i + 1], across, row, str(number))
    for number, (row, column) in enumerate(places, start=1):
        mark(axes[0], column + left, row + top, str(number))
    save(figure, file)


def draw_anchors_figure(file: Path) -> None:
    """Draw a source image, its labels, and the anchors on the grid of the features."""
    image, label = street(12, "game", **SIZE)
    colours = np.array([*CITYSCAPES.colours, *[(0, 0, 0)] * (256 - len(CITYSCAPES.colours))])
    grid = torch.from_numpy(label[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].copy()).long()
    guess = torch.roll(grid, 1, dims=0)  # a decoder that errs at the edges of things
    chosen = sample_anchors(
        grid[None],
        guess[None].clamp(max=18),
        num_classes=19,
        per_class=14,
        generator=torch.Generator().manual_seed(0),
    )
    cells = chosen.index[chosen.valid].numpy()
    rows, columns = np.divmod(cells, grid.shape[1])
    classes = grid.flatten().numpy()[cells]
    wrong = (guess != grid).flatten().numpy()[cells]

    figure, axes = plt.subplots(1, 3, figsize=(11, 2.3), layout="constrained")
    show(axes[0], image, "a source image")
    show(axes[1], colours[label].astype(np.uint8), "its labels")
    show(axes[2], (image * 0.35 + 160).astype(np.uint8), "anchors; a ring: the decoder errs")
    edges = np.where(wrong, "black", "none")
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    axes[2].scatter(x, y, s=16, c=colours[classes] / 255, edgecolors=edges, linewidths=0.8)
    save(figure, file)


def draw_features_figure(before: Path, after: Path, file: Path) -> None:
    """Draw features of source and target pixels of a model before, and one after adaptation."""
    data = read_yaml(after / "config.yaml")["data"]
    models = {"source only": pipa.load_segmenter(before), "adapted": pipa.load_segmenter(after)}
    seen = examine(models, data, count=8)
    colours = np.array(seen.labels.colours) / 255
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for (name, found), axis in zip(seen.features.items(), axes, strict=True):
        domains = (
            ("source", found.source, found.source_class, "o"),
            ("target", found.target, found.target_class, "X"),
        )
        for domain, points, classes, marker in domains:
            options = {"s": 22, "edgecolors": "white", "linewidths": 0.4, "alpha": 0.85}
            axis.scatter(*points.T, c=colours[classes], marker=marker, label=domain, **options)
        share = f"{100 * found.apart:.0f} % of neighbours are of the same domain"
        axis.set_title(f"{name}: {share}", fontsize=10)
        axis.set(xticks=[], yticks=[])
    keys = axes[0].legend(loc="lower left", fontsize=9, frameon=False)
    for key in keys.legend_handles:
        key.set_facecolor("black")
    save(figure, file)


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """Show an image without ticks."""
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    for side in axes.spines.values():
        side.set_visible(False)


def mark(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a number in a white disc."""
    disc = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "black", "lw": 0.7}
    axes.text(x, y, text, fontsize=7, ha="center", va="center", bbox=disc)


def save(figure: plt.Figure, file: Path) -> None:
    """Write a small JPEG."""
    figure.savefig(file, dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)


if __name__ == "__main__":
    matplotlib.use("Agg")
    draw_pair_figure(HERE / "how_pair.jpg")
    draw_anchors_figure(HERE / "how_anchors.jpg")
    if len(sys.argv) == 3:
        draw_features_figure(Path(sys.argv[1]), Path(sys.argv[2]), HERE / "how_features.jpg")
