"""The surfaces of Streets: each has a class, a texture, and colours in both domains.

A surface has as many colours in `game` (saturated) as in `camera` (muted); a thing has the same
index in both, so the gap between the domains is a straight line from one colour to the other.
"""

from enum import IntEnum
from typing import NamedTuple

from pipa.classes import Colour

VOID = 255
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN = range(10)
SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 19)


class Texture(IntEnum):
    """The pattern of a surface; see `textures.pattern`."""

    FLAT = 0
    ASPHALT = 1
    SLABS = 2
    GRASS = 3
    LEFT = 4
    RIGHT = 5
    LEAVES = 6
    GRAIN = 7
    CLOUDS = 8


class Surface(NamedTuple):
    """One row of the table: Cityscapes train id, texture, and paired colours (RGB)."""

    label: int
    texture: Texture
    game: tuple[Colour, ...]
    camera: tuple[Colour, ...]


_DARK = ((38, 40, 48),), ((52, 50, 50),)
_PAINT = (
    ((232, 30, 35), (25, 95, 235), (250, 205, 20), (245, 245, 248), (20, 170, 90), (30, 32, 44)),
    ((122, 48, 44), (58, 70, 98), (168, 158, 112), (176, 178, 176), (84, 96, 90), (44, 44, 46)),
)
_CARGO = (
    ((250, 130, 20), (250, 250, 250), (70, 110, 230), (60, 190, 120)),
    ((158, 112, 76), (186, 188, 186), (96, 106, 128), (122, 136, 122)),
)
_BUS = (
    ((225, 35, 45), (255, 215, 50), (60, 200, 235), (245, 245, 240)),
    ((134, 62, 58), (184, 164, 96), (110, 136, 146), (182, 180, 172)),
)
_CLOTHES = (
    (
        (240, 60, 160),
        (30, 190, 190),
        (250, 160, 30),
        (150, 60, 220),
        (245, 245, 245),
        (220, 35, 40),
    ),
    ((140, 92, 112), (78, 116, 118), (156, 124, 82), (88, 74, 104), (190, 190, 188), (118, 58, 56)),
)
_LEGS = (
    ((35, 60, 150), (40, 40, 50), (130, 90, 60), (90, 30, 120)),
    ((62, 70, 92), (50, 48, 48), (108, 98, 84), (70, 66, 74)),
)
_SKIN = (
    ((246, 196, 150), (190, 130, 85), (120, 78, 52)),
    ((196, 160, 136), (152, 116, 92), (92, 68, 56)),
)
_HAIR = ((60, 35, 20), (240, 200, 80), (25, 22, 25)), ((66, 54, 46), (160, 140, 104), (40, 38, 38))
_GLASS = ((150, 205, 240), (70, 100, 150)), ((110, 122, 130), (58, 64, 68))
_WALLS = (
    (
        (226, 178, 112),
        (196, 82, 62),
        (112, 124, 190),
        (236, 214, 170),
        (150, 110, 80),
        (176, 186, 200),
    ),
    (
        (158, 142, 122),
        (128, 92, 80),
        (112, 112, 122),
        (182, 174, 158),
        (112, 100, 90),
        (146, 148, 148),
    ),
)
_LEAVES = ((40, 165, 45), (70, 190, 50), (25, 130, 60)), ((74, 88, 56), (92, 98, 58), (56, 72, 54))
_BLACK, _WHITE = (((30, 30, 34),), ((42, 41, 41),)), (((250, 250, 250),), ((206, 204, 198),))
_RED, _YELLOW = (((235, 25, 30),), ((168, 48, 46),)), (((255, 205, 20),), ((204, 166, 78),))
_BLUE, _GREEN = (((20, 80, 235),), ((52, 78, 140),)), (((30, 230, 90),), ((96, 190, 140),))
_STEEL = ((95, 105, 125), (60, 68, 80)), ((108, 108, 106), (78, 77, 76))

_T = Texture
_TABLE: dict[str, Surface] = {
    "sky": Surface(
        SKY,
        _T.CLOUDS,
        ((78, 168, 250), (110, 190, 255), (60, 140, 240)),
        ((178, 186, 198), (200, 202, 204), (150, 160, 178)),
    ),
    "road": Surface(
        ROAD,
        _T.ASPHALT,
        ((122, 124, 134), (108, 112, 122), (132, 126, 136)),
        ((104, 100, 96), (86, 85, 86), (124, 120, 114)),
    ),
    "mark": Surface(ROAD, _T.ASPHALT, *_WHITE),
    "walk": Surface(
        SIDEWALK,
        _T.SLABS,
        ((222, 158, 162), (206, 170, 150), (200, 176, 190)),
        ((150, 142, 134), (134, 132, 130), (160, 148, 138)),
    ),
    "kerb": Surface(SIDEWALK, _T.ASPHALT, ((206, 206, 210),), ((146, 144, 140),)),
    "grass": Surface(
        TERRAIN,
        _T.GRASS,
        ((150, 214, 84), (186, 206, 96), (128, 196, 96)),
        ((116, 118, 80), (136, 124, 92), (98, 106, 72)),
    ),
    "wall_left": Surface(BUILDING, _T.LEFT, *_WALLS),
    "wall_right": Surface(BUILDING, _T.RIGHT, *_WALLS),
    "wall_end": Surface(BUILDING, _T.GRAIN, *_WALLS),
    "roof": Surface(
        BUILDING, _T.GRAIN, ((170, 70, 50), (90, 90, 110)), ((112, 80, 70), (84, 84, 88))
    ),
    "window": Surface(
        BUILDING,
        _T.FLAT,
        ((80, 110, 160), (60, 70, 100), (170, 210, 240)),
        ((70, 76, 82), (48, 50, 54), (120, 126, 130)),
    ),
    "door": Surface(BUILDING, _T.FLAT, ((110, 60, 30), (40, 90, 70)), ((78, 62, 52), (60, 68, 64))),
    "shop": Surface(
        BUILDING,
        _T.FLAT,
        ((230, 60, 80), (250, 190, 60), (50, 150, 220)),
        ((124, 72, 72), (158, 138, 98), (80, 100, 118)),
    ),
    "stone_left": Surface(
        WALL, _T.LEFT, ((130, 138, 200), (176, 168, 150)), ((112, 110, 114), (134, 126, 114))
    ),
    "stone_right": Surface(
        WALL, _T.RIGHT, ((130, 138, 200), (176, 168, 150)), ((112, 110, 114), (134, 126, 114))
    ),
    "coping": Surface(WALL, _T.GRAIN, ((210, 205, 195),), ((156, 152, 146),)),
    "plank": Surface(
        FENCE,
        _T.GRAIN,
        ((190, 130, 60), (150, 95, 45), (240, 236, 225)),
        ((126, 106, 80), (98, 82, 68), (176, 172, 162)),
    ),
    "rail": Surface(FENCE, _T.FLAT, ((60, 75, 70), (40, 110, 80)), ((70, 72, 70), (68, 84, 76))),
    "pole": Surface(POLE, _T.FLAT, *_STEEL),
    "lamp": Surface(POLE, _T.FLAT, ((230, 232, 220),), ((176, 174, 164),)),
    "signal": Surface(
        LIGHT, _T.FLAT, ((250, 190, 20), (40, 42, 48)), ((150, 122, 58), (50, 50, 50))
    ),
    "signal_red": Surface(LIGHT, _T.FLAT, ((255, 40, 30),), ((232, 84, 66),)),
    "signal_yellow": Surface(LIGHT, _T.FLAT, ((255, 225, 60),), ((232, 196, 96),)),
    "signal_green": Surface(LIGHT, _T.FLAT, *_GREEN),
    "signal_off": Surface(LIGHT, _T.FLAT, *_DARK),
    "sign_red": Surface(SIGN, _T.FLAT, *_RED),
    "sign_white": Surface(SIGN, _T.FLAT, *_WHITE),
    "sign_blue": Surface(SIGN, _T.FLAT, *_BLUE),
    "sign_yellow": Surface(SIGN, _T.FLAT, *_YELLOW),
    "leaves": Surface(VEGETATION, _T.LEAVES, *_LEAVES),
    "trunk": Surface(VEGETATION, _T.GRAIN, ((125, 80, 40),), ((84, 72, 62),)),
    "far_trees": Surface(VEGETATION, _T.LEAVES, *_LEAVES),
    "far_wall": Surface(BUILDING, _T.GRAIN, *_WALLS),
    "shirt": Surface(PERSON, _T.GRAIN, *_CLOTHES),
    "legs": Surface(PERSON, _T.GRAIN, *_LEGS),
    "skin": Surface(PERSON, _T.FLAT, *_SKIN),
    "hair": Surface(PERSON, _T.FLAT, *_HAIR),
    "bag": Surface(PERSON, _T.FLAT, *_CLOTHES),
    "rider_shirt": Surface(RIDER, _T.GRAIN, *_CLOTHES),
    "rider_legs": Surface(RIDER, _T.GRAIN, *_LEGS),
    "rider_skin": Surface(RIDER, _T.FLAT, *_SKIN),
    "helmet": Surface(RIDER, _T.FLAT, *_PAINT),
    "tyre": Surface(BICYCLE, _T.FLAT, ((28, 26, 34),), ((46, 45, 46),)),
    "frame": Surface(BICYCLE, _T.FLAT, *_PAINT),
    "paint": Surface(CAR, _T.GRAIN, *_PAINT),
    "glass": Surface(CAR, _T.FLAT, *_GLASS),
    "wheel": Surface(CAR, _T.FLAT, *_BLACK),
    "hub": Surface(CAR, _T.FLAT, ((190, 195, 205),), ((128, 128, 128),)),
    "tail": Surface(CAR, _T.FLAT, *_RED),
    "head": Surface(CAR, _T.FLAT, ((255, 250, 200),), ((220, 216, 196),)),
    "trim": Surface(CAR, _T.FLAT, *_DARK),
    "plate": Surface(CAR, _T.FLAT, *_WHITE),
    "cargo": Surface(TRUCK, _T.GRAIN, *_CARGO),
    "cab": Surface(TRUCK, _T.GRAIN, *_PAINT),
    "truck_glass": Surface(TRUCK, _T.FLAT, *_GLASS),
    "truck_dark": Surface(TRUCK, _T.FLAT, *_DARK),
    "truck_tail": Surface(TRUCK, _T.FLAT, *_RED),
    "truck_head": Surface(TRUCK, _T.FLAT, ((255, 250, 200),), ((220, 216, 196),)),
    "bus": Surface(BUS, _T.GRAIN, *_BUS),
    "bus_glass": Surface(BUS, _T.FLAT, *_GLASS),
    "bus_dark": Surface(BUS, _T.FLAT, *_DARK),
    "bus_tail": Surface(BUS, _T.FLAT, *_RED),
    "bus_board": Surface(BUS, _T.FLAT, *_YELLOW),
    "bin": Surface(VOID, _T.GRAIN, ((30, 120, 70), (110, 110, 120)), ((62, 80, 70), (90, 90, 90))),
}

SURFACES: tuple[Surface, ...] = tuple(_TABLE.values())
"""Every surface; a face of a scene holds the index of its surface here."""

_INDEX = {name: i for i, name in enumerate(_TABLE)}


def surface(name: str) -> int:
    """Return the index of a surface in `SURFACES`.

    Raises:
        KeyError: There is no such surface.
    """
    return _INDEX[name]
