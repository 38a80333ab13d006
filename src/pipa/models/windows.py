"""Windows that slide over an image and overlap, for prediction and for HRDA's details.

The logits of overlapping windows are averaged (mmsegmentation@encoder_decoder.py, slide inference).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.batch import Box

Sides = int | tuple[int, int]
"""A number for rows and columns alike, or one for each."""


def tile(height: int, width: int, *, window: Sides, stride: Sides) -> list[Box]:
    """Return boxes that cover an image, row by row; the last of a row or column is at the border.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        window: Sides of a box, in pixels; at most the image's.
        stride: Pixels from one box to the next; at most the window's, so that there are no gaps.
    """
    down, right = zip(_pair(window), _pair(stride), strict=True)
    rows, columns = _spans(height, *down), _spans(width, *right)
    return [Box(row, column) for row in rows for column in columns]


def _spans(length: int, window: int, stride: int) -> list[slice]:
    window = min(window, length)
    stride = min(stride, window)
    count = -((window - length) // stride) + 1  # rounded up
    starts = [min(index * stride, length - window) for index in range(count)]
    return [slice(start, start + window) for start in starts]


def _pair(sides: Sides) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides


@runtime_checkable
class Windowed(Protocol):
    """A network with the size, the stride and the number per pass of its windows: a `Segmenter`."""

    window: Sides
    stride: Sides
    chunk: int

    def __call__(self, image: Tensor, /) -> Tensor:
        """Return logits (n, k, s, t) of images (n, 3, s, t)."""


def slide(model: Windowed, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """Return logits of an image of any size: the mean over the network's windows."""
    return average_windows(
        model, image, window=model.window, stride=model.stride, chunk=model.chunk
    )


def average_windows(
    function: Callable[[Tensor], Tensor],
    image: Float[Tensor, "b c h w"],
    *,
    window: Sides,
    stride: Sides,
    chunk: int | None = None,
    cell: int = 1,
) -> Float[Tensor, "b k _ _"]:
    """Average the results of `function` for windows of `image`; sum in float32 or wider.

    Peak memory grows with `chunk`.

    Args:
        function: From crops (n, c, s, t) to logits (n, k, s / cell, t / cell).
        image: The input.
        window: Sides of a window, in pixels.
        stride: Pixels from one window to the next; a multiple of `cell`.
        chunk: Windows that go through `function` together; all of them when None.
        cell: Pixels per logit; h and w are multiples of it.
    """
    boxes = tile(*image.shape[-2:], window=window, stride=stride)
    step = len(boxes) if chunk is None else chunk
    total: Tensor | None = None
    count = image.new_zeros(image.shape[-2] // cell, image.shape[-1] // cell)
    for first in range(0, len(boxes), step):
        group = boxes[first : first + step]
        crops = torch.cat([image[..., *box] for box in group])
        logits = function(crops)
        # Not `chunk`, whose result would fix the number of images in an exported network.
        answers = logits.reshape(len(group), image.shape[0], *logits.shape[1:])
        if total is None:
            # Half precision would round at every window; float64 stays float64.
            dtype = torch.promote_types(answers.dtype, torch.float32)
            if len(boxes) == 1:
                return answers[0].to(dtype)
            total = answers.new_zeros(*answers.shape[1:3], *count.shape, dtype=dtype)
        for box, answer in zip(group, answers, strict=True):
            cells = shrink(box, cell)
            total[..., *cells] += answer
            count[*cells] += 1
    assert total is not None, "an image has at least one window"
    return total.div_(count.to(total.dtype))  # in place: this may be gigabytes


def shrink(box: Box, cell: int) -> Box:
    """Return the box on a grid with `cell` pixels per cell; its edges are multiples of `cell`."""
    assert all(edge % cell == 0 for span in box for edge in (span.start, span.stop)), (box, cell)
    rows, columns = (slice(span.start // cell, span.stop // cell) for span in box)
    return Box(rows, columns)


def whole(image: Float[Tensor, "b c h w"]) -> Box:
    """Return the box of the entire image."""
    return Box(slice(0, image.shape[-2]), slice(0, image.shape[-1]))


def enlarge(
    image: Float[Tensor, "b c h w"], *, minimum: int = 1, multiple: int = 1
) -> Float[Tensor, "b c H W"]:
    """Repeat the last row and column until each side is long enough and a multiple.

    Args:
        image: The input.
        minimum: Minimum side of the result.
        multiple: Divisor of each side of the result.
    """
    height, width = image.shape[-2:]
    below = -(-max(height, minimum) // multiple) * multiple - height
    right = -(-max(width, minimum) // multiple) * multiple - width
    if below == 0 and right == 0:
        return image
    return F.pad(image, (0, right, 0, below), mode="replicate")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode for a `with` block; afterwards restore the mode of each module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
