"""Where each data set keeps its images and labels: original layouts in, pairs of paths out.

Nothing is converted and no picture is opened here; a wrong folder fails at once, with a sentence.
A data set of your own is a function of five lines that returns `Files`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipa.data.labels import (
    CITYSCAPES_LABEL_IDS,
    GTA5_IDS,
    SYNTHIA_IDS,
    TRAIN_IDS,
    ClassTable,
)
from pipa.data.tables import find_table
from pipa.errors import PipaError
from pipa.files.images import IMAGE_SUFFIXES, LABEL_SUFFIXES


@dataclass(frozen=True)
class Pair:
    """An image and its label; a target's images have none."""

    image: Path
    label: Path | None


@dataclass(frozen=True)
class Files:
    """A data set on disk.

    Args:
        root: Its folder, for errors and for what is kept beside it.
        pairs: Its images, sorted by path.
        table: What its label files hold; None: the ids of the run.
        faults: Images that should have a label and have none; they are not among the pairs.
        spare: Labels of no image.
    """

    root: Path
    pairs: list[Pair]
    table: ClassTable | None
    faults: tuple[PipaError, ...] = ()
    spare: tuple[Path, ...] = ()


def folder(root: Path, labelled: bool = True) -> Files:
    """`root/images` and `root/labels` with equal names; unlabelled, `root` may hold the images.

    The class table is `classes.yaml` in `root` or beside it.

    Raises:
        PipaError: A folder is missing or empty.
    """
    images = root / "images"
    if not labelled and root.is_dir() and not images.is_dir():
        images = root
    found = _list(images, IMAGE_SUFFIXES, "Images go to <root>/images, labels to <root>/labels.")
    table = find_table(root)
    if not labelled:
        return Files(root, [Pair(path, None) for path in found], table)
    labels = root / "labels"
    known = {
        path.relative_to(labels).with_suffix(""): path
        for path in _list(labels, LABEL_SUFFIXES, "Each image has a PNG of the same name there.")
    }

    def label_of(image: Path) -> Path:
        stem = image.relative_to(images).with_suffix("")
        return known.get(stem, labels / f"{stem}.png")

    files = _pair(root, found, label_of, known.values(), table)
    return replace(files, spare=tuple(set(known.values()) - {p.label for p in files.pairs}))


def gta5(root: Path, labelled: bool = True) -> Files:
    """GTA5 as its archives unpack: `images/*.png`, palette `labels/*.png`.

    Raises:
        PipaError: The layout is another.
    """
    return _mirrored(root, root / "images", root / "labels", "", labelled, GTA5_IDS)


def synthia(root: Path, labelled: bool = True) -> Files:
    """SYNTHIA-RAND-CITYSCAPES: `RGB/*.png`, 16-bit `GT/LABELS/*.png`.

    Raises:
        PipaError: The layout is another.
    """
    return _mirrored(root, root / "RGB", root / "GT" / "LABELS", "", labelled, SYNTHIA_IDS)


def cityscapes(root: Path, split: str, labelled: bool = True) -> Files:
    """Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*`.

    Args:
        root: Folder of `leftImg8bit` and `gtFine`.
        split: "train", "val" or "test".
        labelled: Whether to look for labels: `*_labelIds.png`, else `*_labelTrainIds.png`.

    Raises:
        PipaError: The layout is another.
    """
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    return _suffixed(root, images, labels, ("_leftImg8bit", "_gtFine"), labelled, [images])


def acdc(root: Path, split: str, labelled: bool = True) -> Files:
    """ACDC: `rgb_anon/CONDITION/SPLIT/SEQUENCE/*_rgb_anon.png`, `gt/...`; or split first.

    Raises:
        PipaError: The layout is another.
    """
    images, labels = root / "rgb_anon", root / "gt"
    within = [images / split, *sorted(images.glob(f"*/{split}"))]
    return _suffixed(root, images, labels, ("_rgb_anon", "_gt"), labelled, within)


def dark_zurich(root: Path, split: str, labelled: bool = True) -> Files:
    """Dark Zurich at night: `rgb_anon/SPLIT/night/SEQUENCE/*_rgb_anon.png`, `gt/...`.

    Raises:
        PipaError: The layout is another.
    """
    images, labels = root / "rgb_anon", root / "gt"
    within = [images / split / "night"]
    return _suffixed(root, images, labels, ("_rgb_anon", "_gt"), labelled, within)


def listing(file: Path, labelled: bool = True) -> Files:
    """A text or CSV file with `image[,label]` on each line, relative to the file's folder.

    Empty lines, lines that begin with `#` and a first line `image,label` are passed over. The
    class table is `classes.yaml` beside the file.

    Raises:
        PipaError: The file is missing or empty, or a line lacks a label.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipaError(f"cannot be read as a list of images ({error})", file) from error
    rows = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    rows = [(n, text) for n, text in rows if text and not text.startswith(("#", "image,"))]
    if not rows:
        raise PipaError("lists no images", file, "Write `image,label` on each line.")
    pairs = []
    for number, text in rows:
        image, _, label = (part.strip() for part in text.partition(","))
        if labelled and not label:
            raise PipaError(f"line {number} has no label", file, "Write `image,label`.")
        pairs.append(Pair(file.parent / image, file.parent / label if labelled else None))
    return Files(file.parent, pairs, find_table(file.parent))


def _mirrored(
    root: Path, images: Path, labels: Path, ending: str, labelled: bool, table: ClassTable
) -> Files:
    """Labels with the images' names in a parallel folder."""
    hint = f"Its layout is {images.relative_to(root)} and {labels.relative_to(root)} in <root>."
    found = _list(images, IMAGE_SUFFIXES, hint)
    if not labelled:
        return Files(root, [Pair(path, None) for path in found], table)
    known = _list(labels, LABEL_SUFFIXES, hint)

    def label_of(image: Path) -> Path:
        return labels / image.relative_to(images).with_suffix(f"{ending}.png")

    return _pair(root, found, label_of, known, table)


def _suffixed(
    root: Path,
    images: Path,
    labels: Path,
    endings: tuple[str, str],
    labelled: bool,
    within: Iterable[Path],
) -> Files:
    """Cityscapes' way: `x_leftImg8bit.png` has its label in `x_gtFine_labelIds.png`."""
    hint = f"Its layout is {images.relative_to(root)} and {labels.relative_to(root)} in <root>."
    theirs, ours = endings
    found = [
        path
        for part in within
        if part.is_dir()
        for path in _list(part, IMAGE_SUFFIXES, hint)
        if path.stem.endswith(theirs)
    ]
    if not found:
        raise PipaError(f"no images *{theirs}.png in {images.relative_to(root)}", root, hint)
    if not labelled:
        return Files(root, [Pair(path, None) for path in found], TRAIN_IDS)
    known = set(_list(labels, LABEL_SUFFIXES, hint))
    kind = "labelIds" if any(p.stem.endswith("_labelIds") for p in known) else "labelTrainIds"

    def label_of(image: Path) -> Path:
        name = f"{image.stem.removesuffix(theirs)}{ours}_{kind}.png"
        return labels / image.relative_to(images).with_name(name)

    table = CITYSCAPES_LABEL_IDS if kind == "labelIds" else TRAIN_IDS
    return _pair(root, found, label_of, known, table)


def _list(where: Path, suffixes: Iterable[str], hint: str) -> list[Path]:
    """All files below a folder with one of the suffixes, sorted; hidden ones are passed over."""
    if not where.is_dir():
        raise PipaError("the folder does not exist", where, hint)
    wanted = set(suffixes)
    found = sorted(
        path
        for path in where.rglob("*")
        if path.suffix.lower() in wanted and not path.name.startswith(".")
    )
    if not found:
        inside = sorted(p.name for p in where.iterdir())[:4]
        shown = f"it holds {', '.join(inside)}" if inside else "it is empty"
        raise PipaError(f"no images found; {shown}", where, hint)
    return found


def _pair(
    root: Path,
    images: list[Path],
    label_of: Callable[[Path], Path],
    known: Iterable[Path],
    table: ClassTable | None,
) -> Files:
    """Images with their labels; those without are faults."""
    there = set(known)
    pairs = [Pair(image, label_of(image)) for image in images]
    faults = (
        PipaError(
            f"has no label; expected {pair.label}",
            pair.image,
            "Add the label, or remove the image.",
        )
        for pair in pairs
        if pair.label not in there
    )
    return Files(root, [pair for pair in pairs if pair.label in there], table, tuple(faults))
