"""The models of each kind of thing, built on first use."""

from collections.abc import Callable
from functools import cache

from pipa.streets import figures, vehicles
from pipa.streets.shapes import Model

_STRIDES = (0.1, 0.28, 0.36, 0.18, 0.42, 0.05)


@cache
def models(kind: str) -> tuple[Model, ...]:
    """Return all models of one kind; a thing's `choice` selects one.

    Raises:
        KeyError: There is no such kind.
    """
    makers: dict[str, Callable[[], tuple[Model, ...]]] = {
        "car": _cars,
        "truck": lambda: tuple(
            vehicles.truck(*size) for size in ((7.2, 3.4), (8.0, 3.8), (6.4, 3.1))
        ),
        "bus": lambda: (vehicles.bus(11.0, 3.2), vehicles.bus(10.0, 3.0)),
        "person": lambda: tuple(
            figures.person(stride, skirt=i % 4 == 1, bag=i % 3 == 2)
            for i, stride in enumerate(_STRIDES)
        ),
        "rider": lambda: (figures.rider(behind=False),),
        "rider_behind": lambda: (figures.rider(behind=True),),
        "bicycle": lambda: (figures.parked_bicycle(),),
        "tree": lambda: tuple(figures.tree(seed, 11) for seed in range(8)),
        "bush": lambda: tuple(figures.bush(seed, 7) for seed in range(8)),
        "lamp": lambda: (figures.street_lamp(1.4), figures.street_lamp(2.2)),
        "light": lambda: tuple(
            figures.traffic_light(i % 3, 0.0 if i < 6 else 3.0) for i in range(9)
        ),
        "sign": lambda: tuple(figures.traffic_sign(i) for i in range(6)),
        "post": lambda: (figures.post(1.1, 0.2), figures.post(5.5, 0.2), figures.post(3.0, 0.16)),
        "bin": lambda: (figures.litter_bin(),),
    }
    return makers[kind]()


def _cars() -> tuple[Model, ...]:
    """Build a hatchback, a saloon, a van and a small car."""
    return (
        vehicles.car(4.3, 1.5, 1.1, 0.1),
        vehicles.car(4.5, 1.45, 1.15, 0.75),
        vehicles.car(4.6, 1.75, 0.9, 0.0),
        vehicles.car(3.8, 1.55, 0.8, 0.05),
    )
