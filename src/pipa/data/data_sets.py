"""The table of data sets: for each name a function that lists pairs of paths.

A data set of your own is one more such function, here or in any module of yours:

    @data_set("bdd", splits=TRAIN_VAL)
    def bdd(root: Path, split: str, labelled: bool) -> Files:
        '''BDD100K: `images/10k/SPLIT/*.jpg`, `labels/sem_seg/masks/SPLIT/*.png`.'''
        images, labels = f"images/10k/{split}", f"labels/sem_seg/masks/{split}"
        return mirrored(root, images, labels, labelled, TRAIN_IDS)

Its ids are a table in `labels`, or None: those of the run. `--data.source bdd:/data/bdd` then names
it once its module is imported; `--data.source my_module.bdd:/data/bdd` imports the module itself,
and needs no decorator.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from pipa.data import labelmap
from pipa.data.labelmap import voc_classes
from pipa.data.labels import GTA5_IDS, SYNTHIA_IDS
from pipa.data.layouts import (
    Files,
    Pair,
    list_files,
    mirrored,
    other_files,
    same_names,
    suffixed,
    unlabelled,
    with_flow,
)
from pipa.data.tables import FILE, find_table, table_in
from pipa.errors import PipaError
from pipa.files.images import IMAGE_SUFFIXES
from pipa.files.walk import without_labels

Role = Literal["source", "target", "validation"]
"""What a run needs a data set for."""
Lister = Callable[[Path, str, bool], Files]
"""Lists a data set's files.

Its arguments are the folder (or file) that the user gives; the split, empty for a data set without
splits; and whether to look for labels, which it must not do for a target.
"""


class DataSet(NamedTuple):
    """A row of the table."""

    list_files: Lister
    splits: Mapping[Role, str] | None
    """Split of each role; None: the data set has no splits."""
    needs_path: bool = True
    """False: the name alone is enough."""


TABLES = (FILE, labelmap.FILE)
"""Names of class tables, which are no images that were skipped."""
DATA_SETS: dict[str, DataSet] = {}
"""All data sets by name."""
TRAIN_VAL: Mapping[Role, str] = {"source": "train", "target": "train", "validation": "val"}
"""The usual splits."""


def data_set(
    name: str, *, splits: Mapping[Role, str] | None = None, needs_path: bool = True
) -> Callable[[Lister], Lister]:
    """Enter the decorated function into the table; its docstring says what the layout is.

    Args:
        name: The FORMAT in `[FORMAT[/SPLIT]:]PATH`.
        splits: The split that each role takes where the user names none; None: no splits.
        needs_path: False if the name alone is enough.

    Raises:
        PipaError: Another module has taken the name, or it could be mistaken for a path.
    """
    if not name.isidentifier():
        raise PipaError(f"{name!r} is no name for a data set", remedy="Use letters, digits and _.")

    def enter(list_files: Lister) -> Lister:
        taken = DATA_SETS.get(name)
        if taken is not None and taken.list_files.__module__ != list_files.__module__:
            where = taken.list_files.__module__
            raise PipaError(f"the data set {name} is defined in {where}", remedy="Rename yours.")
        DATA_SETS[name] = DataSet(list_files, splits, needs_path)
        return list_files

    return enter


def formats() -> dict[str, str]:
    """Return the layout of each data set: the first line of its function's docstring."""
    return {
        name: (entry.list_files.__doc__ or "").strip().partition("\n")[0]
        for name, entry in DATA_SETS.items()
    }


@data_set("folder")
def folder(root: Path, split: str, labelled: bool) -> Files:
    """`images/*` and `labels/*.png` with equal names; `classes.yaml` in PATH or beside it.

    Unlabelled, `root` may hold the images itself; label files below it are left out. A video's
    optical flow may lie beside the images, in `flow_next/*.png` and `flow_previous/*.png`, in
    KITTI's form (see `files.flow`).

    Raises:
        PipaError: A folder is missing or empty.
    """
    images = root / "images"
    if root.suffix == ".json" and root.is_file():
        return coco(root, split, labelled)
    if (root / "JPEGImages").is_dir() and not images.is_dir():
        return voc(root, split, labelled)
    if not labelled and root.is_dir() and not images.is_dir():
        images = root
    hint = "Images go to <root>/images, labels to <root>/labels."
    found = list_files(images, IMAGE_SUFFIXES, hint)
    table = find_table(root)
    skipped = [p for p in other_files(images, IMAGE_SUFFIXES) if p.name not in TABLES]
    note = ""
    if images == root:
        found, note = without_labels(found, root)
    if not labelled:
        files = with_flow(unlabelled(root, found, table), images)
    else:
        files = same_names(root, found, images, root / "labels", table)
    return replace(files, skipped=tuple(skipped), notes=(note,) if note else ())


@data_set("gta5")
def gta5(root: Path, split: str, labelled: bool) -> Files:
    """GTA5 as its archives unpack: `images/*.png`, palette `labels/*.png`.

    Raises:
        PipaError: The layout is another.
    """
    return mirrored(root, "images", "labels", labelled, GTA5_IDS)


@data_set("synthia")
def synthia(root: Path, split: str, labelled: bool) -> Files:
    """SYNTHIA-RAND-CITYSCAPES: `RGB/*.png`, 16-bit `GT/LABELS/*.png`.

    Raises:
        PipaError: The layout is another.
    """
    return mirrored(root, "RGB", "GT/LABELS", labelled, SYNTHIA_IDS)


@data_set("list")
def listing(file: Path, split: str, labelled: bool) -> Files:
    """PATH is a text or CSV file with `image[,label]` on each line, relative to its folder.

    Empty lines, lines that begin with `#` and a first line `image,label` are skipped. The class
    table is `classes.yaml` beside the file.

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
        if "\0" in text:
            raise PipaError(f"line {number} holds no file names", file)
        image, _, label = (part.strip() for part in text.partition(","))
        if labelled and not label:
            raise PipaError(f"line {number} has no label", file, "Write `image,label`.")
        pairs.append(Pair(file.parent / image, file.parent / label if labelled else None))
    return Files(file.parent, pairs, find_table(file.parent))


@data_set("voc", splits=TRAIN_VAL)
def voc(root: Path, split: str, labelled: bool) -> Files:
    """VOC and CVAT's masks: `JPEGImages/*`, `SegmentationClass/*.png`, `labelmap.txt`.

    The split is a list of names, `ImageSets/Segmentation/SPLIT.txt`, or else `default.txt`, or else
    all. Without a `labelmap.txt` or `classes.yaml` the classes are VOC's.

    Raises:
        PipaError: A folder is missing or empty.
    """
    hint = "Images go to <root>/JPEGImages, masks to <root>/SegmentationClass."
    images = root / "JPEGImages"
    found = list_files(images, IMAGE_SUFFIXES, hint)
    for name in (split, "default", "trainval"):
        listed = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        if name and listed.is_file():
            try:
                names = set(listed.read_text("utf-8").split("\n"))
            except (OSError, UnicodeDecodeError) as error:
                raise PipaError(f"cannot be read ({error})", listed) from error
            found = [p for p in found if str(p.relative_to(images).with_suffix("")) in names]
            break
    table = table_in(root) or voc_classes()
    if not labelled:
        return unlabelled(root, found, table)
    return replace(same_names(root, found, images, root / "SegmentationClass", table), spare=())


@data_set("coco")
def coco(file: Path, split: str, labelled: bool) -> Files:
    """PATH is a JSON file of COCO's annotations; its images lie beside it or in `images/` near it.

    Raises:
        PipaError: The file is no such file, or its images are not found.
    """
    from pipa.data.coco import coco_files  # not always needed

    return coco_files(file, labelled)


@data_set("cityscapes", splits=TRAIN_VAL)
def cityscapes(root: Path, split: str, labelled: bool) -> Files:
    """Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*`.

    The labels are `*_labelIds.png`, or else `*_labelTrainIds.png`.

    Raises:
        PipaError: The layout is another.
    """
    endings = "_leftImg8bit", "_gtFine"
    within = [root / "leftImg8bit" / split]
    return suffixed(root, f"leftImg8bit/{split}", f"gtFine/{split}", endings, labelled, within)


@data_set("acdc", splits=TRAIN_VAL)
def acdc(root: Path, split: str, labelled: bool) -> Files:
    """ACDC: `rgb_anon/CONDITION/SPLIT/SEQUENCE/*_rgb_anon.png`, `gt/...`; or the split first.

    `rgb_anon/SPLIT` goes first: HRDA's instructions copy all images there, and with them only the
    labels `*_labelTrainIds.png`.

    Raises:
        PipaError: The layout is another.
    """
    images = root / "rgb_anon"
    copied = images / split
    within = [copied] if copied.is_dir() else sorted(images.glob(f"*/{split}"))
    return suffixed(root, "rgb_anon", "gt", ("_rgb_anon", "_gt"), labelled, within)


@data_set("dark_zurich", splits=TRAIN_VAL)
def dark_zurich(root: Path, split: str, labelled: bool) -> Files:
    """Dark Zurich at night: `rgb_anon/SPLIT/night/SEQUENCE/*_rgb_anon.png`, `gt/...`.

    Raises:
        PipaError: The layout is another.
    """
    within = [root / "rgb_anon" / split / "night"]
    return suffixed(root, "rgb_anon", "gt", ("_rgb_anon", "_gt"), labelled, within)


@data_set(
    "streets",
    splits={"source": "source", "target": "target", "validation": "val"},
    needs_path=False,
)
def streets(settings: Path, split: str, labelled: bool) -> Files:
    """The built-in benchmark; PATH may hold settings: `streets:gap=0.3,seed=1`.

    Raises:
        PipaError: A setting is not known, or the user's cache cannot be written.
    """
    from pipa.streets.cached import streets_folder  # the drawing program is not always needed

    given = "" if settings == Path() else str(settings)
    return folder(streets_folder(given) / split, "", labelled)
