"""COCO's annotations (CVAT, Label Studio, Roboflow write them): polygons, painted as label files.

Classes are the categories in the order of their ids, after `background`, which every pixel is
that no polygon covers, as in Pascal VOC. Of polygons that overlap, the smaller lies on top.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipa.classes import LabelSpace
from pipa.data.labels import ids_table
from pipa.data.layouts import Files, Pair, unlabelled
from pipa.errors import PipaError
from pipa.files.cache import cache_folder
from pipa.files.images import write_png
from pipa.files.paint import distinct_colours
from pipa.files.threads import in_threads

_EXAMPLE = "It should hold COCO's `images`, `categories` and `annotations`."
BACKGROUND = "background"


@dataclass(frozen=True)
class Annotations:
    """What is read from a file of annotations.

    Args:
        images: Name, height and width of each image, by its id.
        labels: The classes.
        classes: Class of each category's id.
        shapes: Annotations of each image.
    """

    images: Mapping[Any, tuple[str, int, int]]
    labels: LabelSpace
    classes: Mapping[int, int]
    shapes: Mapping[Any, list[Mapping[str, Any]]]


def coco_files(file: Path, labelled: bool) -> Files:
    """List the images of a file of annotations, with labels painted into the user's cache.

    Images are looked for beside the file, beside its folder, and in folders there.

    Args:
        file: The JSON file.
        labelled: Whether to paint labels.

    Raises:
        PipaError: The file cannot be read, or no image is found.
    """
    data, given = read_annotations(file)
    names = [name for name, _, _ in given.images.values()]
    root = images_folder(file, names)
    table = ids_table(given.labels, f"the categories of {file}")
    there = [(key, root / name) for key, (name, _, _) in given.images.items()]
    faults = tuple(
        PipaError("is not there", path, f"{file} lists it.")
        for _, path in there
        if not path.is_file()
    )
    found = sorted((pair for pair in there if pair[1].is_file()), key=lambda pair: pair[1])
    if not labelled:
        return unlabelled(root, [path for _, path in found], table)
    place = cache_folder() / "coco_labels" / hashlib.sha256(data).hexdigest()[:20]
    order = {key: number for number, key in enumerate(given.images)}  # of all, found or not
    paths = [place / f"{order[key]:06}.png" for key, _ in found]

    def paint(number: int) -> PipaError | Pair:
        key, image = found[number]
        if not paths[number].is_file():
            try:
                label = label_of(given, key)
            except ValueError as error:
                problem = f"has an annotation that cannot be painted; {error} in {file}"
                return PipaError(problem, image, "Export polygons, or masks as PNG.")
            paths[number].parent.mkdir(parents=True, exist_ok=True)
            write_png(paths[number], label)
        return Pair(image, paths[number])

    painted = list(in_threads(paint, len(found), "Painting the polygons"))
    pairs = [one for one in painted if isinstance(one, Pair)]
    faults += tuple(one for one in painted if isinstance(one, PipaError))
    return Files(file.parent, pairs, table, faults)


def read_annotations(file: Path) -> tuple[bytes, Annotations]:
    """Read a file of annotations; return its bytes, too.

    Raises:
        PipaError: It cannot be read, or is no file of annotations.
    """
    try:
        data = file.read_bytes()
        content = json.loads(data)
        images = {
            image["id"]: (str(image["file_name"]), int(image["height"]), int(image["width"]))
            for image in content["images"]
        }
        names = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        shapes = defaultdict(list)
        for shape in content["annotations"]:
            shapes[shape["image_id"]].append(shape)
    except OSError as error:
        raise PipaError(f"cannot be read ({error.strerror})", file) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise PipaError(f"is no file of annotations ({reason})", file, _EXAMPLE) from error
    if not images or not names:
        raise PipaError("lists no images, or no categories", file, _EXAMPLE)
    if not all(0 < side < 2**16 for _, *sides in images.values() for side in sides):
        raise PipaError("holds an image without a height and a width", file, _EXAMPLE)
    labels, classes = label_space(names, file)
    return data, Annotations(images, labels, classes, shapes)


def label_space(names: Mapping[int, str], file: Path) -> tuple[LabelSpace, dict[int, int]]:
    """Return the classes, and the class of each category's id."""
    ordered = [names[number] for number in sorted(names)]
    first = [name for name in ordered if name.casefold() == BACKGROUND] or [BACKGROUND]
    shown = [*first, *(name for name in ordered if name not in first)]
    if len(shown) > 250 or len(set(shown)) < len(shown) or len(set(ordered)) < len(ordered):
        raise PipaError("has two categories of one name, or more than 249", file)
    colours = ((0, 0, 0), *distinct_colours(len(shown) - 1))
    return LabelSpace(tuple(shown), colours), {n: shown.index(name) for n, name in names.items()}


def images_folder(file: Path, names: Sequence[str]) -> Path:
    """Return the folder to which the names of the images are relative.

    Raises:
        PipaError: No image is found anywhere near the file.
    """
    for folder in _near(file):
        if any((folder / name).is_file() for name in names[:20]):
            return folder
    raise PipaError(
        f"its images are not found (the first is {names[0][:100]})",
        file,
        f"Put them into {file.parent / 'images'}.",
    )


def _near(file: Path) -> Iterator[Path]:
    for parent in (file.absolute().parent, file.absolute().parent.parent):
        yield from (parent, parent / "images")
        yield from sorted(path for path in parent.glob("images/*") if path.is_dir())
        yield from sorted(path for path in parent.glob("*") if path.is_dir())


def label_of(given: Annotations, image: Any) -> UInt8[np.ndarray, "h w"]:
    """Paint one image's label.

    Raises:
        ValueError: A shape has no class, or is neither polygon nor run lengths; it is named.
    """
    _, height, width = given.images[image]
    label = np.zeros((height, width), np.uint8)
    masks = []
    for shape in given.shapes.get(image, []):
        try:
            if shape["category_id"] not in given.classes:
                raise ValueError(f"no category has the id {shape['category_id']}")
            number = given.classes[shape["category_id"]]
            mask = mask_of(shape["segmentation"], height, width)
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"[:200].removeprefix("ValueError: ")
            raise ValueError(f"it is annotation {shape.get('id', '?')} ({reason})") from error
        masks.append((int(mask.sum()), number, mask))
    for _, number, mask in sorted(masks, key=lambda entry: -entry[0]):
        label[mask] = number
    return label


def mask_of(shape: Any, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Return the pixels of a segmentation: the union of polygons, or COCO's run lengths.

    Run lengths go down column after column, outside first; those packed as text are refused.

    Raises:
        ValueError: It is neither.
        TypeError: The same.
    """
    mask = np.zeros((height, width), bool)
    if not shape:
        raise ValueError("it has a box only")
    if isinstance(shape, dict):
        runs = shape["counts"]
        if not isinstance(runs, list) or sum(runs) != height * width:
            raise ValueError("the run lengths are packed, or do not fit the image")
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.asarray(inside.reshape(width, height).T)
    for polygon in shape:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) % 2 or len(corners) < 6:
            raise ValueError("a polygon needs three points x, y or more")
        fill(mask, corners.reshape(-1, 2))
    return mask


def fill(mask: Bool[np.ndarray, "h w"], corners: Float[np.ndarray, "n 2"]) -> None:
    """Set the pixels whose centres lie within a polygon (even-odd rule).

    `cv2.fillPoly` also sets those that an edge touches: of small objects, a fifth too many.

    Args:
        mask: It is changed.
        corners: Column and row of each corner; pixel (0, 0) reaches from 0 to 1.
    """
    if not np.isfinite(corners).all():
        raise ValueError("a corner is no number")
    height, width = mask.shape
    top, bottom = corners[:, 1].min(), corners[:, 1].max()
    rows = np.arange(max(0, int(top)), min(height, int(np.ceil(bottom)))) + 0.5
    if not len(rows):
        return
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    edge, row = np.nonzero((y[:, None] > rows) != (next_y[:, None] > rows))
    slope = (next_x[edge] - x[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + (rows[row] - y[edge]) * slope
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((len(rows), width + 1), np.uint8)
    np.add.at(turns, (row, column), 1)
    first = int(rows[0])
    inside = np.cumsum(turns, axis=1, dtype=np.uint8)[:, :width] % 2 == 1
    mask[first : first + len(rows)] |= inside
