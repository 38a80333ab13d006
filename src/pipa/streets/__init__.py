"""Streets: the built-in procedural benchmark.

Perspective street scenes with Cityscapes' train ids in two looks, `game` (the labelled source) and
`camera` (the target). A seed decides everything. Two of the 19 classes never occur: train and
motorcycle.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipa.streets.render import street as street
    from pipa.streets.render import street_frames as street_frames
    from pipa.streets.write import write_streets as write_streets

__all__ = ["street", "street_frames", "write_streets"]


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in ("street", "street_frames"):
        from pipa.streets import render

        return getattr(render, name)
    if name == "write_streets":
        from pipa.streets.write import write_streets

        return write_streets
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
