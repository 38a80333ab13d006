"""The frame of the report's page: `page.html` with its style and its script, filled in by Jinja.

Jinja escapes every text, so that names of classes, files and runs are data. The page's own policy
forbids it to load anything, and any script but its own.
"""

import base64
import hashlib
import math
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Integer, UInt8
from markupsafe import Markup

from pipa.classes import Colour
from pipa.evaluation.plots import PALETTE, for_dark, picture
from pipa.evaluation.scores import figure
from pipa.files.paint import colourise

_WIDEST = 640
"""Maximum number of columns of a picture; wider ones are reduced."""


def render(**content: Any) -> str:
    """Return a whole HTML document that needs no other file.

    Args:
        content: The variables of `page.html`.
    """
    style, script, template = (_text(name) for name in ("page.css", "page.js", "page.html"))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "figure": figure,
        "plot": plot,
        "photo": photo,
        "label_map": label_map,
        "css": css,
    }
    tones = {
        theme: " ".join(f"--tone{i}: {colour};" for i, colour in enumerate(colours))
        for theme, colours in PALETTE.items()
    }
    for theme, colours in tones.items():
        style = style.replace(f"/* {theme} tones */", colours)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(template).render(
        style=Markup(style), script=Markup(script), script_digest=digest, **content
    )


def plot(svg: bytes, caption: str) -> Markup:
    """Return a figure for light and dark pages, as HTML."""
    return Markup(
        '<picture><source media="(prefers-color-scheme: dark)" srcset="{}">'
        '<img alt="{}" src="{}"></picture>'
    ).format(_uri(for_dark(svg), "svg+xml"), caption, _uri(svg, "svg+xml"))


def photo(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """Return a photograph as a data URI; squares of pixels are averaged if it is wide."""
    step = _step(image.shape[1])
    height, width = image.shape[0] // step, image.shape[1] // step
    cut = image[: height * step, : width * step].reshape(height, step, width, step, 3)
    small: UInt8[np.ndarray, "_ _ 3"] = np.rint(cut.mean(axis=(1, 3))).astype(np.uint8)
    return _uri(picture(small, form="jpeg"), "jpeg")


def label_map(ids: Integer[np.ndarray, "h w"], colours: tuple[Colour, ...]) -> str:
    """Return class ids as a data URI, in the colours of the classes; 255 is black."""
    step = _step(ids.shape[1])
    height, width = ids.shape[0] // step, ids.shape[1] // step
    small = ids[: height * step : step, : width * step : step]
    return _uri(picture(colourise(small, colours)), "png")


def css(colour: Colour) -> str:
    """Return a colour for a style sheet."""
    return "rgb({},{},{})".format(*colour)


def _uri(data: bytes, form: str) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


def _step(width: int) -> int:
    return max(1, math.ceil(width / _WIDEST))


def _text(name: str) -> str:
    return (files("pipa.evaluation") / name).read_text(encoding="utf-8")
