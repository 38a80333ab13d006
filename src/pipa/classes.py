"""The classes that a run predicts, scores and paints: their names, colours and grouping."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IGNORE_INDEX = 255
"""The id of pixels without a label (Cityscapes' convention): no loss uses them."""
Colour = tuple[int, int, int]
"""Red, green, blue, each 0..255."""


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a run.

    Args:
        names: Name of each class.
        colours: Colour of each class.
        cityscapes: Cityscapes train ids that each class groups; empty if not known.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    cityscapes: tuple[tuple[int, ...], ...] = ()

    def as_plain(self) -> dict[str, Any]:
        """Return names and colours as lists, for JSON; `from_plain` reads them."""
        colours = [[int(value) for value in colour] for colour in self.colours]
        return {"names": list(self.names), "colours": colours}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "LabelSpace":
        """Build from names and colours.

        Raises:
            ValueError: A colour is no colour.
        """
        colours = tuple((int(r), int(g), int(b)) for r, g, b in plain["colours"])
        if not all(0 <= value <= 255 for colour in colours for value in colour):
            raise ValueError("a colour is not three numbers from 0 to 255")
        return cls(tuple(plain["names"]), colours)

    @property
    def num_classes(self) -> int:
        """Number of classes, k."""
        return len(self.names)

    @property
    def things(self) -> tuple[int, ...]:
        """Ids of the classes that group countable objects of Cityscapes (DAFormer's L_FD)."""
        groups = enumerate(self.cityscapes)
        return tuple(i for i, group in groups if group and set(group) <= _THINGS)


_NAMES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
    "person rider car truck bus train motorcycle bicycle"
)
# fmt: off
_COLOURS: tuple[Colour, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)
# fmt: on

CITYSCAPES = LabelSpace(
    names=tuple(name.replace("_", " ") for name in _NAMES.split()),
    colours=_COLOURS,
    cityscapes=tuple((i,) for i in range(19)),
)
"""The 19 classes that Cityscapes scores, in the order of its train ids."""
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each train id, in the label files and for the test server."""
_THINGS = {6, 7, 11, 12, 13, 14, 15, 16, 17, 18}
SYNTHIA16 = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""Train ids on which SYNTHIA -> Cityscapes is scored: all but terrain, truck and train."""
SYNTHIA13 = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
"""The 13 train ids that older papers score: wall, fence and pole are left out as well."""
