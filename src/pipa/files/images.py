"""Reading and writing of image files; no other module does it.

OpenCV reads and writes all formats, Pillow the palettes of BMP and TIFF; pyspng, where it is
installed, decodes the usual PNG to the same bits in less time. Every function names the file in
its error. Colours are RGB everywhere; OpenCV's own order (BGR) never leaves this file.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8, UInt16
from PIL import Image

from pipa.errors import PipaError
from pipa.files.jpeg import CutOffError, decode_jpeg
from pipa.files.writing import write_bytes

try:
    import pyspng
except ImportError:  # there is no wheel for this system
    pyspng = None

# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif",
    ".tiff", ".webp",
])
"""Suffixes of the files in a folder that are images (lower case)."""
FOREIGN_SUFFIXES = frozenset([
    ".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".svg",
])
"""Suffixes of pictures in formats that `read_image` refuses (lower case)."""
# fmt: on
LABEL_SUFFIXES = frozenset([".png", ".bmp", ".tif", ".tiff"])
"""Suffixes of formats that keep a label's numbers exactly."""

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _COLOUR_ALPHA = 0, 2, 3, 6  # colour types of PNG
# fmt: off
_PLAIN_CHUNKS = frozenset([
    b"IHDR", b"IDAT", b"IEND", b"PLTE", b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"sBIT", b"bKGD",
    b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME",
])
# fmt: on
"""Chunks that change no pixel; others turn an image (eXIf) or hold further ones (APNG)."""

# Loader processes are forks: one would wait forever for threads that OpenCV had before the fork.
cv2.setNumThreads(0)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our errors say the same


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image as RGB in [0, 255]; alpha is dropped, grey is repeated.

    Of 16 bits the upper 8 are kept.

    Raises:
        PipaError: The file is missing, empty, truncated, not an image, or a GIF of several frames.
    """
    data = _bytes(path)
    image = _decode_plain_png(data)
    return _decode(path, data, cv2.IMREAD_COLOR_RGB) if image is None else image


def read_label(path: Path) -> Integer[np.ndarray, "h w"] | Integer[np.ndarray, "h w c"]:
    """Read a label file as it is: palette indices, grey values, or channels, 8 or 16 bits.

    Returns:
        An array (h, w) of a palette or grey file, else (h, w, 3) or (h, w, 4) in the order R G B A.

    Raises:
        PipaError: The file is missing, empty, truncated or not an image.
    """
    data = _bytes(path)
    depth, kind = _png_depth_and_kind(data)
    if kind == _PALETTE:
        data = _as_grey(data)
    if (indices := _palette_indices(data)) is not None:
        return indices
    raw = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if kind in (_GREY, _PALETTE) and depth < 8:
        raw //= 255 // (2**depth - 1)  # OpenCV stretches 1, 2 and 4 bits to the full range
    if raw.ndim == 3 and raw.shape[2] >= 3:
        raw = raw[..., [2, 1, 0, 3][: raw.shape[2]]]
    if raw.dtype.kind not in "iu":
        raise PipaError("the label holds fractions; expected whole numbers", path)
    return raw


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width; only the first bytes of a PNG are read.

    Raises:
        PipaError: The file is missing, empty or not an image.
    """
    head = _bytes(path, count=26)
    if head[:8].tobytes() == _PNG and len(head) == 26:
        width, height = struct.unpack(">II", head[16:24].tobytes())
        return height, width
    return read_image(path).shape[:2]


def fit_size(size: tuple[int, int], bounds: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size of an image scaled to fit into `bounds`, ratio kept; None keeps the size.

    The longer side is compared with the longer bound, the shorter with the shorter: `bounds` may be
    given in either order (mmcv's `rescale_size`).
    """
    if bounds is None:
        return size
    scale = min(max(bounds) / max(size), min(bounds) / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def write_png(
    path: Path,
    array: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"],
    palette: UInt8[np.ndarray, "k 3"] | None = None,
) -> None:
    """Write a PNG, whole or not at all.

    Args:
        path: File to write; an existing one is replaced.
        array: RGB, grey values, or ids.
        palette: Colours of the ids 0..k-1, k <= 256; the file then holds ids (h, w), and
            viewers show them in colour.

    Raises:
        PipaError: The file cannot be written.
    """
    if palette is not None:
        data = _palette_png(array, palette)
    else:
        bgr = array if array.ndim == 2 else array[..., ::-1]
        data = cv2.imencode(".png", bgr)[1].tobytes()
    write_bytes(path, data)


def _bytes(path: Path, count: int = -1) -> UInt8[np.ndarray, " n"]:
    if path.exists() and not path.is_file():  # a pipe would never end
        raise PipaError("cannot be read (it is no file)", path)
    try:
        data = np.fromfile(path, np.uint8, count)
    except OSError as error:
        raise PipaError(f"cannot be read ({error.strerror})", path) from error
    if not len(data):
        raise PipaError("the file is empty", path)
    return data


def _decode_plain_png(data: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a PNG of 8-bit colours; None for other files, for damaged ones, and without pyspng."""
    depth, kind = _png_depth_and_kind(data)
    if pyspng is None or depth != 8 or kind not in (_COLOUR, _COLOUR_ALPHA):
        return None
    name = b""
    for name, start, end in _chunks(data):
        # pyspng compares no checksums, and would decode what a broken disk or line has changed.
        sound = zlib.crc32(data[start + 4 : end - 4].data).to_bytes(4, "big")
        if name not in _PLAIN_CHUNKS or data[end - 4 : end].tobytes() != sound:
            return None
    if name != b"IEND":
        return None
    try:
        image: np.ndarray = pyspng.load(data.tobytes())
    except (RuntimeError, ValueError):
        return None
    return np.ascontiguousarray(image[..., :3])


def _decode(path: Path, data: UInt8[np.ndarray, " n"], flags: int) -> np.ndarray:
    broken = PipaError(
        "the file is truncated or no image",
        path,
        "Copy it again from its origin, or remove it together with its label.",
    )
    try:
        if data[:4].tobytes() == b"GIF8" and len(cv2.imdecodeanimation(data)[1].frames) > 1:
            remedy = "Write its frames as PNG first: `ffmpeg -i FILE %04d.png`."
            raise PipaError("is an animation, not an image", path, remedy)
        upright = decode_jpeg(data) if flags == cv2.IMREAD_COLOR_RGB else None
        if upright is None and not _is_complete(data):
            raise broken
        array = cv2.imdecode(data, flags) if upright is None else upright
    except (cv2.error, CutOffError) as error:
        raise broken from error
    if array is None:
        raise _foreign_format(path, data) or broken
    return np.asarray(array)


def _foreign_format(path: Path, data: UInt8[np.ndarray, " n"]) -> PipaError | None:
    """Return the error about a picture in a format that is not read; None if it is none."""
    suffix = path.suffix.lower()
    known = suffix.removeprefix(".").upper() if suffix in FOREIGN_SUFFIXES else ""
    if data[4:8].tobytes() == b"ftyp" and data[8:12].tobytes() in (b"heic", b"heix", b"mif1"):
        known = "HEIC"  # telephones write it, now and then with the suffix of JPEG
    if not known:
        return None
    return PipaError(f"{known} is not read", path, "Convert it to JPEG or PNG first.")


def _is_complete(data: UInt8[np.ndarray, " n"]) -> bool:
    """Whether a PNG or JPEG has its end; OpenCV fills up missing pixels without a word."""
    if data[:8].tobytes() == _PNG:
        return any(name == b"IEND" for name, _, _ in _chunks(data))
    if data[:3].tobytes() == b"\xff\xd8\xff":
        whole = data.tobytes()
        return whole.rfind(b"\xff\xd9") > whole.rfind(b"\xff\xda")
    return True


def _png_depth_and_kind(data: UInt8[np.ndarray, " n"]) -> tuple[int, int]:
    """Return bit depth and colour type of a PNG; (8, -1) for any other file."""
    if data[:8].tobytes() != _PNG or len(data) < 26:
        return 8, -1
    return int(data[24]), int(data[25])


def _palette_indices(data: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "h w"] | None:
    """Read a BMP or TIFF of one bit or with a palette (OpenCV gives colours); else None."""
    if data[:2].tobytes() not in (b"BM", b"II", b"MM"):
        return None
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return np.array(image, np.uint8) if image.mode in ("1", "P") else None
    except (OSError, ValueError, SyntaxError):  # OpenCV says what is wrong, or can read it
        return None


def _as_grey(data: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, " m"]:
    """Turn palette indices of a PNG into grey values, as OpenCV returns the palette's colours."""
    kept = [np.frombuffer(_PNG, np.uint8)]
    for name, start, end in _chunks(data):
        if name == b"IHDR":
            body = b"IHDR" + data[start + 8 : start + 17].tobytes() + bytes([_GREY])
            body += data[start + 18 : end - 4].tobytes()
            kept.append(_chunk(body))
        elif name[:1].isupper() and name != b"PLTE":  # chunks that are not optional
            kept.append(data[start:end])
    return np.concatenate(kept)


def _chunks(data: UInt8[np.ndarray, " n"]) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, first and last byte of each chunk."""
    start = len(_PNG)
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4].tobytes(), "big")
        yield data[start + 4 : start + 8].tobytes(), start, start + length + 12
        start += length + 12


def _chunk(body: bytes) -> UInt8[np.ndarray, " n"]:
    packed = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return np.frombuffer(packed, np.uint8)


def _palette_png(ids: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"]) -> bytes:
    height, width = ids.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    rows = np.pad(ids, ((0, 0), (1, 0)))  # each row begins with the number of its filter, 0
    bodies = (
        b"IHDR" + header,
        b"PLTE" + np.asarray(palette, np.uint8).tobytes(),
        b"IDAT" + zlib.compress(rows.tobytes(), 6),
        b"IEND",
    )
    return _PNG + b"".join(_chunk(body).tobytes() for body in bodies)
