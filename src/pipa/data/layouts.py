"""What a data set on disk is, and the three usual ways to pair its images with its labels.

Nothing is converted, and no image is opened here: paths in, paths out. A wrong folder fails at
once, with a sentence that says what the layout should be.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipa.data.labels import CITYSCAPES_LABEL_IDS, TRAIN_IDS, ClassTable
from pipa.errors import PipaError
from pipa.files.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIXES
from pipa.files.walk import files_below


@dataclass(frozen=True)
class Pair:
    """An image and its label; the images of a target have none."""

    image: Path
    label: Path | None
    flow: "FlowFiles | None" = None
    """Optical flow to the frames after and before, in a video that comes with it."""


class FlowFiles(NamedTuple):
    """The flow of one frame, as `files.flow` reads it; a file may not exist at a video's end."""

    next: Path
    previous: Path


@dataclass(frozen=True)
class Files:
    """A data set on disk.

    Args:
        root: Its folder, for errors and for what is kept beside it.
        pairs: Its images, sorted by path.
        table: What the numbers in its label files mean; None: they are the ids of the run.
        faults: One error for each image that has no label of its own but needs one; such an image
            is not among the pairs.
        spare: Labels that belong to no image.
        skipped: Files among the images that are none, or none that pipa reads.
        notes: Lines about files that were left out on purpose.
    """

    root: Path
    pairs: list[Pair]
    table: ClassTable | None
    faults: tuple[PipaError, ...] = ()
    spare: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def mirrored(
    root: Path, images: str, labels: str, labelled: bool, table: ClassTable | None
) -> Files:
    """Pair `root/images/x.jpg` with `root/labels/x.png`, in subfolders as well.

    Args:
        root: The data set's folder.
        images: Folder of the images, relative to `root`.
        labels: Folder of the labels, relative to `root`.
        labelled: Whether to look for labels.
        table: What the numbers in the label files mean; None: they are the ids of the run.

    Raises:
        PipaError: A folder is missing or empty.
    """
    hint = f"Its layout is {images} and {labels} in <root>."
    found = list_files(root / images, IMAGE_SUFFIXES, hint)
    if not labelled:
        return unlabelled(root, found, table)
    known = list_files(root / labels, LABEL_SUFFIXES, hint)

    def label_of(image: Path) -> Path:
        return root / labels / image.relative_to(root / images).with_suffix(".png")

    return paired(root, found, label_of, known, table)


def same_names(
    root: Path, found: list[Path], images: Path, labels: Path, table: ClassTable | None
) -> Files:
    """Pair images with labels of the same name, whatever the suffix of each.

    Args:
        root: The data set's folder.
        found: The images.
        images: The folder of the images; labels have the same subfolders.
        labels: The folder of the labels.
        table: What the numbers in the label files mean; None: they are the ids of the run.

    Raises:
        PipaError: There is no folder of labels, or it is empty.
    """
    hint = "Each image has a PNG of the same name there."
    known: dict[Path, Path] = {}
    faults = []
    for path in list_files(labels, LABEL_SUFFIXES, hint):
        first = known.setdefault(path.relative_to(labels).with_suffix(""), path)
        if first != path:
            problem = f"is a second label of one image; the first is {first}"
            faults.append(PipaError(problem, path, "Remove one of them."))

    def label_of(image: Path) -> Path:
        stem = image.relative_to(images).with_suffix("")
        return known.get(stem, labels / f"{stem}.png")

    files = paired(root, found, label_of, known.values(), table)
    owned = {label_of(image) for image in found}
    return replace(
        files,
        faults=(*files.faults, *faults),
        spare=tuple(set(known.values()) - owned),
    )


def suffixed(
    root: Path,
    images: str,
    labels: str,
    endings: tuple[str, str],
    labelled: bool,
    within: Iterable[Path],
) -> Files:
    """Pair files as Cityscapes does: `x_leftImg8bit.png` with `x_gtFine_labelIds.png`.

    Where these images have no `*_labelIds.png`, their labels are `*_labelTrainIds.png`.

    Args:
        root: The data set's folder.
        images: Folder of the images, relative to `root`.
        labels: Folder of the labels, relative to `root`, with the same subfolders.
        endings: What the names of images, and of labels, have after their common part.
        labelled: Whether to look for labels.
        within: Folders below `root/images` to search.

    Raises:
        PipaError: There are no images, or the folder of labels is missing or empty.
    """
    hint = f"Its layout is {images} and {labels} in <root>."
    theirs, ours = endings
    found = [
        path
        for part in within
        if part.is_dir()
        for path in list_files(part, IMAGE_SUFFIXES, hint)
        if path.stem.endswith(theirs)
    ]
    if not found:
        raise PipaError(f"no images *{theirs}.png in {images}", root, hint)
    if not labelled:
        return unlabelled(root, found, TRAIN_IDS)
    known = set(list_files(root / labels, LABEL_SUFFIXES, hint))

    def label_of(image: Path, kind: str = "labelTrainIds") -> Path:
        name = f"{image.stem.removesuffix(theirs)}{ours}_{kind}.png"
        return root / labels / image.relative_to(root / images).with_name(name)

    if any(label_of(image, "labelIds") in known for image in found):
        return paired(
            root, found, lambda image: label_of(image, "labelIds"), known, CITYSCAPES_LABEL_IDS
        )
    return paired(root, found, label_of, known, TRAIN_IDS)


def list_files(where: Path, suffixes: Iterable[str], hint: str) -> list[Path]:
    """List all files below a folder that have one of the suffixes, sorted, without hidden ones.

    Args:
        where: The folder.
        suffixes: Suffixes in lower case, with their dot.
        hint: A sentence that says what the layout should be.

    Raises:
        PipaError: The folder does not exist, or holds no such file.
    """
    if not where.is_dir():
        raise PipaError("the folder does not exist", where, hint)
    wanted = set(suffixes)
    found = [path for path in files_below(where) if path.suffix.lower() in wanted]
    if not found:
        foreign = {path.suffix.lower() for path in files_below(where)} & FOREIGN_SUFFIXES
        if foreign:
            problem = f"holds only pictures that pipa does not read ({', '.join(sorted(foreign))})"
            raise PipaError(problem, where, "Convert them to JPEG or PNG.")
        inside = sorted(p.name for p in where.iterdir())[:4]
        shown = f"it holds {', '.join(inside)}" if inside else "it is empty"
        raise PipaError(f"no images found; {shown}", where, hint)
    return found


def other_files(where: Path, suffixes: Iterable[str]) -> tuple[Path, ...]:
    """List the files below a folder with other suffixes, sorted, without hidden ones."""
    known = set(suffixes)
    others = (path for path in files_below(where) if path.suffix.lower() not in known)
    return tuple(path for path in others if path.is_file())


def unlabelled(root: Path, images: Iterable[Path], table: ClassTable | None) -> Files:
    """List images without labels."""
    return Files(root, [Pair(path, None) for path in images], table)


def with_flow(files: Files, images: Path) -> Files:
    """Add the flow that lies in `flow_next` and `flow_previous` beside the folder of the images."""
    after, before = images.parent / "flow_next", images.parent / "flow_previous"
    if not (after.is_dir() and before.is_dir()):
        return files

    def of(image: Path) -> FlowFiles:
        name = image.relative_to(images).with_suffix(".png")
        return FlowFiles(after / name, before / name)

    return replace(files, pairs=[replace(pair, flow=of(pair.image)) for pair in files.pairs])


def paired(
    root: Path,
    images: Iterable[Path],
    label_of: Callable[[Path], Path],
    known: Iterable[Path],
    table: ClassTable | None,
) -> Files:
    """Pair images with their labels.

    An image is a fault if its label is not among the `known`, or another image has the same one.
    """
    there = set(known)
    pairs = [Pair(image, label_of(image)) for image in images]
    times = Counter(pair.label for pair in pairs)
    faults = []
    for pair in pairs:
        remedy = "Add the label, or remove the image."
        if pair.label not in there:
            faults.append(PipaError(f"has no label; expected {pair.label}", pair.image, remedy))
        elif times[pair.label] > 1:
            problem = f"is one of {times[pair.label]} images for one label; it is {pair.label}"
            faults.append(PipaError(problem, pair.image, "Rename an image and its own label."))
    good = [pair for pair in pairs if pair.label in there and times[pair.label] == 1]
    return Files(root, good, table, tuple(faults))
