"""Miniature data sets in the layouts of the real ones, to run the whole program on.

Each label is a mosaic of blocks; each image shows a colour per class, with noise, so that a network
can learn it. The files are those of the originals: palette PNG, 16-bit PNG, Cityscapes' names.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipa.classes import CITYSCAPES
from pipa.data.labels import CITYSCAPES_LABEL_IDS, GTA5_IDS, SYNTHIA_IDS, ClassTable
from pipa.files.images import write_png

CLASSES = """\
0: {name: ground, color: [90, 60, 40]}
1: {name: water, color: [30, 60, 200]}
2: {name: forest, color: [20, 140, 30]}
"""


def mosaic(seed, size=(48, 64), ids=range(3), block=8):
    """A label of blocks, each of one of the ids."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(list(ids), (-(-size[0] // block), -(-size[1] // block)))
    return cells.repeat(block, 0).repeat(block, 1)[: size[0], : size[1]]


def picture(label, seed, shift=0):
    """An image whose colours depend on the class; `shift` turns it into another domain."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(7).integers(40, 216, (256, 3))
    noisy = colours[np.asarray(label, int) % 256] + shift + rng.integers(-20, 21, (*label.shape, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def folder(
    root: Path,
    count=4,
    *,
    size=(48, 64),
    kind="ids",
    classes=CLASSES,
    labelled=True,
    shift=0,
    seed=0,
) -> Path:
    """`images/`, `labels/` (ids, palette or colours) and `classes.yaml`."""
    (root / "images").mkdir(parents=True)
    colours = np.array([[90, 60, 40], [30, 60, 200], [20, 140, 30]], np.uint8)
    if classes:
        (root / "classes.yaml").write_text(classes)
    if labelled:
        (root / "labels").mkdir()
    for i in range(count):
        label = mosaic(seed + i, size).astype(np.uint8)
        write_png(root / "images" / f"{i:03}.png", picture(label, seed + i, shift))
        path = root / "labels" / f"{i:03}.png"
        if labelled and kind == "colours":
            write_png(path, colours[label])
        elif labelled:
            write_png(path, label, colours if kind == "palette" else None)
    return root


def gta5(root: Path, count=4, *, size=(48, 64), seed=0) -> Path:
    """GTA5: `images/00001.png` and palette PNG `labels/00001.png`."""
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    for i in range(1, count + 1):
        raw = mosaic(seed + i, size, _raw_ids(GTA5_IDS))
        _write_image(root / "images" / f"{i:05}.png", picture(_train(GTA5_IDS, raw), seed + i))
        path = _made(root / "labels" / f"{i:05}.png")
        path.write_bytes(raw_png(raw[..., None].astype("u1"), palette))
    return root


def synthia(root: Path, count=4, *, size=(48, 64), seed=0, grey=False) -> Path:
    """SYNTHIA-RAND-CITYSCAPES: 16 bits, the class in the first channel, the instance in the next.

    Args:
        root: Folder to make.
        count: Number of images.
        size: Height and width.
        seed: Decides the pictures.
        grey: Two channels (grey and alpha), as some mirrors have it, instead of three.
    """
    for i in range(count):
        raw = mosaic(seed + i, size, _raw_ids(SYNTHIA_IDS))
        name = f"{i:07}.png"
        _write_image(root / "RGB" / name, picture(_train(SYNTHIA_IDS, raw), seed + i))
        instance = mosaic(seed + i + 1000, size, range(3000))
        channels = [raw, instance] if grey else [raw, instance, np.zeros_like(raw)]
        path = _made(root / "GT" / "LABELS" / name)
        path.write_bytes(raw_png(np.stack(channels, -1).astype(">u2")))
    return root


def cityscapes(
    root: Path,
    counts=(("train", 4), ("val", 2)),
    *,
    size=(48, 64),
    train_ids=False,
    shift=25,
    seed=100,
) -> Path:
    """Cityscapes: `leftImg8bit/SPLIT/CITY/..._leftImg8bit.png`, `gtFine/..._labelIds.png`.

    The training split has no labels: nothing may look for a target's.
    """
    for split, count in counts:
        for i in range(count):
            stem = f"{split}/ulm/ulm_{i:06}_000019"
            raw = mosaic(seed + i, size, _raw_ids(CITYSCAPES_LABEL_IDS))
            train = _train(CITYSCAPES_LABEL_IDS, raw)
            _write_image(
                root / "leftImg8bit" / f"{stem}_leftImg8bit.png", picture(train, seed + i, shift)
            )
            if split != "train":
                kind, label = ("labelTrainIds", train) if train_ids else ("labelIds", raw)
                write_png(
                    _made(root / "gtFine" / f"{stem}_gtFine_{kind}.png"), label.astype(np.uint8)
                )
    return root


def acdc(root: Path, *, size=(48, 64), split_first=False, seed=200) -> Path:
    """ACDC: `rgb_anon/fog/train/GOPR1/x_rgb_anon.png`, `gt/fog/val/GOPR1/x_gt_labelIds.png`."""
    for condition in ("fog", "night"):
        for split in ("train", "val"):
            parts = (split, condition) if split_first else (condition, split)
            _adverse(root, "/".join(parts), split, "labelIds", size, seed)
    return root


def dark_zurich(root: Path, *, size=(48, 64), seed=300) -> Path:
    """Dark Zurich: `rgb_anon/train/night/GOPR1/x_rgb_anon.png`, labels for `val` only."""
    for split in ("train", "val"):
        for time in ("day", "night"):
            _adverse(root, f"{split}/{time}", split, "labelTrainIds", size, seed)
    return root


def listing(path: Path, source: Path) -> Path:
    """A list of the images and labels of a folder data set."""
    names = sorted(p.name for p in (source / "images").iterdir())
    lines = ["image,label", *(f"{source}/images/{n},{source}/labels/{n}" for n in names)]
    path.write_text("\n".join(lines) + "\n")
    return path


def raw_png(array: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """A PNG byte by byte, so that readers are compared with the format and not with a writer.

    Args:
        array: (h, w, c), uint8 or big-endian uint16.
        palette: (k, 3) colours of the ids in a one-channel array.
    """
    height, width, channels = array.shape
    kind = 3 if palette is not None else (0, 4, 2, 6)[channels - 1]
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if palette is not None:
        chunks.insert(1, (b"PLTE", palette.astype(np.uint8).tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _adverse(root: Path, middle: str, split: str, kind: str, size, seed) -> None:
    for i in range(2):
        raw = mosaic(seed + i, size, _raw_ids(CITYSCAPES_LABEL_IDS))
        train = _train(CITYSCAPES_LABEL_IDS, raw)
        stem = f"{middle}/GOPR1/GOPR1_frame_{i:06}"
        _write_image(root / "rgb_anon" / f"{stem}_rgb_anon.png", picture(train, seed + i, -20))
        if split == "val":
            label = raw if kind == "labelIds" else train
            write_png(_made(root / "gt" / f"{stem}_gt_{kind}.png"), label.astype(np.uint8))


def _raw_ids(table: ClassTable) -> Sequence[int]:
    """Ids of all classes, and one that is no class."""
    return [raw for raw, own in table.ids.items() if own < CITYSCAPES.num_classes] + [0]


def _train(table: ClassTable, raw: np.ndarray) -> np.ndarray:
    return np.array([table.ids[i] for i in range(max(table.ids) + 1)])[raw]


def _write_image(path: Path, image: np.ndarray) -> None:
    write_png(_made(path), image)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
