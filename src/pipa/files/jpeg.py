"""Decoding of JPEG by simplejpeg: the bits of OpenCV, and it says when a picture is cut off.

OpenCV fills up what is missing without a word, if the file has the marker of its end.
"""

import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

try:
    import simplejpeg
except ImportError:  # there is no wheel for this system
    simplejpeg = None

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: image[::-1, ::-1],
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: np.rot90,
}
"""What shows a picture upright, by the orientation in its EXIF."""


class CutOffError(ValueError):
    """The end of a picture is missing."""


def decode_jpeg(data: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode a JPEG, upright, as RGB.

    Returns:
        The image; None for what is not decoded here: other files, four colours, odd files, and
        everything without simplejpeg.

    Raises:
        CutOffError: Data are missing at its end.
    """
    if simplejpeg is None or data[:3].tobytes() != b"\xff\xd8\xff":
        return None
    whole = data.tobytes()
    try:
        turn = _TURNS[orientation(whole)]
        image = simplejpeg.decode_jpeg(whole, "RGB", fastdct=False, fastupsample=False, strict=True)
    except (ValueError, KeyError, IndexError, struct.error) as error:
        if "premature end" in str(error).lower():
            raise CutOffError(str(error)) from error
        return None
    return np.ascontiguousarray(turn(image))


def orientation(data: bytes) -> int:
    """Return the orientation in a JPEG's EXIF, 1 to 8 in a sound file; 1 if there is none.

    Raises:
        struct.error: The EXIF ends too early.
        IndexError: The file does.
    """
    start = 2
    while data[start] == 0xFF and data[start + 1] not in (0xDA, 0xD9):
        (length,) = struct.unpack_from(">H", data, start + 2)
        body = data[start + 4 : start + 2 + length]
        if data[start + 1] == 0xE1 and body[:6] == b"Exif\0\0":
            return _in_exif(body[6:])
        start += 2 + length
    return 1


def _in_exif(body: bytes) -> int:
    order = "<" if body[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", body, 4)
    (count,) = struct.unpack_from(f"{order}H", body, first)
    for i in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", body, first + 2 + 12 * i)
        if tag == 0x112:
            return int(value)
    return 1
