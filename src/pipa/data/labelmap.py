"""`labelmap.txt`, the class table of CVAT and of Pascal VOC's masks, and VOC's own classes.

    # label:color_rgb:parts:actions
    background:0,0,0::
    road:128,64,128::

Line n is class n; masks hold its colour, or n. A class without a colour has that of VOC.
"""

from pathlib import Path

from pipa.classes import IGNORE_INDEX, Colour, LabelSpace
from pipa.data.labels import ClassTable
from pipa.errors import PipaError

FILE = "labelmap.txt"
_EXAMPLE = "It should hold `road:128,64,128::`, one line per class: the name, then the colour."
_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
VOID: Colour = (224, 224, 192)
"""VOC's colour of pixels that are not scored; in its palette it is number 255."""


def read_labelmap(path: Path) -> ClassTable:
    """Read a `labelmap.txt`.

    Raises:
        PipaError: It cannot be read, or a line is no class.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipaError(f"cannot be read ({error})", path, _EXAMPLE) from error
    classes: dict[str, Colour] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colour = _class(text, len(classes), f"line {number} is {text[:80]!r}", path)
        if name in classes:
            raise PipaError(f"two classes are called {name}", path)
        classes[name] = colour
    if not 0 < len(classes) <= 250:
        raise PipaError(f"holds {len(classes)} classes; expected 1 to 250", path, _EXAMPLE)
    return _table(classes, str(path))


def voc_classes() -> ClassTable:
    """Return the 21 classes of Pascal VOC."""
    names = _VOC.split()
    return _table({name: voc_colour(i) for i, name in enumerate(names)}, "Pascal VOC's classes")


def voc_colour(number: int) -> Colour:
    """Return VOC's colour of a class: its bits, by threes, from the top of each channel down."""
    red = green = blue = 0
    for place in range(8):
        bits = number >> 3 * place
        red |= (bits & 1) << 7 - place
        green |= (bits >> 1 & 1) << 7 - place
        blue |= (bits >> 2 & 1) << 7 - place
    return red, green, blue


def _class(text: str, place: int, where: str, path: Path) -> tuple[str, Colour]:
    """Return name and colour of a line."""
    name, _, rest = text.partition(":")
    shown = rest.partition(":")[0].strip()
    if not name.strip() or ":" not in text:
        raise PipaError(f"{where}, which is no class", path, _EXAMPLE)
    if not shown:
        return name.strip(), voc_colour(place)
    values = [int(v) if v.strip().isdigit() else -1 for v in shown.split(",")]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise PipaError(f"{where}, whose colour is none", path, _EXAMPLE)
    red, green, blue = values
    return name.strip(), (red, green, blue)


def _table(classes: dict[str, Colour], origin: str) -> ClassTable:
    colours = {colour: i for i, colour in reversed(list(enumerate(classes.values())))}
    colours.setdefault(VOID, IGNORE_INDEX)
    space = LabelSpace(tuple(classes), tuple(classes.values()))
    return ClassTable(space, {i: i for i in range(len(classes))}, colours, origin)
