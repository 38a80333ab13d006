"""HRDA: the whole image at half size for context, a crop at full size for detail.

Hoyer, Dai, Van Gool: HRDA (ECCV 2022), sections 3.2 to 3.4. One backbone and one head see both; a
scale attention weighs the two for each class and place. `Segmenter` hides all this from training
and prediction.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.batch import Box
from pipa.errors import PipaError
from pipa.models.backbones import Backbone
from pipa.models.encoder_decoder import MIN_SIDE
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.models.windows import average_windows, enlarge, shrink, whole

COARSE, FINE = 8, 4
"""Pixels of the input per logit of the context (half size, stride 4), and of the detail."""


class HRDA(Segmenter):
    """Context and detail through the same backbone and head, fused by attention.

    Args:
        backbone: From an image to maps at strides 4, 8, 16, 32.
        head: From these maps to logits at stride 4; it has `num_classes`.
        attention_head: From the maps of the context to the logit of the detail's weight.
        detail: Side of the detail crop, in pixels, a multiple of 16 (paper: 512, of 1024).
        detail_weight: Share of the detail's own logits in the loss (paper: lambda_d = 0.1).
        detail_chunk: Detail windows that go through the network together in `forward`: memory
            against speed. In training mode all do, since batch norms need them all.
        detail_stride: Pixels from one detail window to the next in `forward`, which the teacher and
            `predict` use: a multiple of 8, at most `detail`. None: half of `detail`, as in the
            paper; `detail`: side by side, which is less than half of the work.
        window: Side of the window that slides over an image in `predict`; None: twice `detail`.
        stride: Pixels from one window to the next; None: `detail`.
        chunk: Windows that go through the network together in `predict`.

    Raises:
        PipaError: `detail` is not a multiple of 16, or `detail_stride` is not possible.
    """

    generator: torch.Generator | None = None
    """Draws the place of the detail crop in `analyse`; on the CPU. None: torch's global one."""

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        attention_head: nn.Module,
        *,
        detail: int = 512,
        detail_weight: float = 0.1,
        detail_chunk: int = 4,
        detail_stride: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        chunk: int = 1,
    ) -> None:
        if detail <= 0 or detail % 16:
            raise PipaError(f"the detail crop of HRDA is {detail}, not a multiple of 16", "detail")
        between = detail // 2 if detail_stride is None else detail_stride
        if between % COARSE or not 0 < between <= detail:
            raise PipaError(
                f"the detail windows of HRDA are {between} pixels apart",
                "detail_stride",
                f"Give a multiple of {COARSE} that is at most the detail crop, {detail}.",
            )
        super().__init__(
            int(head.num_classes),  # type: ignore[arg-type]
            mean=backbone.mean,
            std=backbone.std,
            window=window or 2 * detail,
            stride=stride or detail,
            chunk=chunk,
        )
        self.backbone, self.head, self.attention_head = backbone, head, attention_head
        self.fused_channels = getattr(head, "width", None)
        self.detail, self.detail_weight, self.detail_chunk = detail, detail_weight, detail_chunk
        self.detail_stride = detail_stride

    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Return fused logits of the whole and logits of a random detail crop, with their features.

        Args:
            image: Training crops; h and w are multiples of 8.

        Raises:
            PipaError: h or w is not a multiple of 8.
        """
        height, width = image.shape[-2:]
        if height % COARSE or width % COARSE:
            raise PipaError(
                f"HRDA trains on crops whose sides are multiples of {COARSE}, got {height}x{width}",
                remedy="Change the crop.",
            )
        box = self._draw_box(height, width)
        image = self.normalise(image)
        context, encoded = self.backbone.look(_halve(image))
        detail, encoded_detail = self.backbone.look(image[..., *box].contiguous())
        coarse, fine = self.head(context), self.head(detail)
        attention = self.attention_head(context).logits.sigmoid()
        logits = _fuse(coarse.logits, fine.logits, attention, box)
        outputs = [
            Output(logits, whole(image), 1 - self.detail_weight),
            Output(fine.logits, box, self.detail_weight),
        ]
        views = (
            View(context, whole(image), encoded, coarse.fused),
            View(detail, box, encoded_detail, fine.fused),
        )
        return Prediction(outputs, *views)

    def context(self, image: Float[Tensor, "b 3 h w"]) -> View:
        """Return the view of the whole image at half size."""
        features, encoded = self.backbone.look(_halve(self.normalise(image)))
        return View(features, whole(image), encoded)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits at the input's size; overlapping detail windows cover the whole image.

        The border is repeated if the sides are not multiples of 8, or shorter than 64.
        """
        height, width = image.shape[-2:]
        image = self.normalise(enlarge(image, minimum=2 * MIN_SIDE, multiple=COARSE))
        context = self.backbone(_halve(image))
        coarse, attention = self.head(context).logits, self.attention_head(context).logits.sigmoid()
        fine = average_windows(
            lambda crops: self.head(self.backbone(crops)).logits,
            image,
            window=self.detail,
            stride=self.detail_stride or self.detail // 2,
            chunk=None if self.training else self.detail_chunk,
            cell=FINE,
        )
        coarse, attention = coarse.to(fine.dtype), attention.to(fine.dtype)
        fused = _fuse(coarse, fine, attention, whole(image))
        logits = F.interpolate(fused, image.shape[-2:], mode="bilinear")
        return logits[..., :height, :width]

    def _draw_box(self, height: int, width: int) -> Box:
        """Draw a detail crop, uniformly over all places on the grid of the context's logits."""
        spans = []
        for length in (height, width):
            size = min(self.detail, length)
            places = (length - size) // COARSE + 1
            start = COARSE * int(torch.randint(places, (), generator=self.generator))
            spans.append(slice(start, start + size))
        return Box(*spans)


def _halve(image: Tensor) -> Tensor:
    return F.interpolate(image, scale_factor=0.5, mode="bilinear")


def _fuse(
    coarse: Float[Tensor, "b k h w"],
    fine: Float[Tensor, "b k s t"],
    attention: Float[Tensor, "b a h w"],
    box: Box,
) -> Float[Tensor, "b k H W"]:
    """Up((1 - a) z_context) + Up(a) z_detail, where `a` is 0 outside the detail's box.

    Args:
        coarse: Logits of the context.
        fine: Logits of the box, on a grid twice as fine.
        attention: a, in [0, 1]; one for each class, or one for all.
        box: The place of `fine`, in pixels of the input.
    """
    inside = torch.zeros_like(attention[:1, :1])
    inside[..., *shrink(box, COARSE)] = 1
    attention = attention * inside
    size = [2 * side for side in coarse.shape[-2:]]
    fused = F.interpolate((1 - attention) * coarse, size, mode="bilinear")
    cells = shrink(box, FINE)
    fused[..., *cells] += F.interpolate(attention, size, mode="bilinear")[..., *cells] * fine
    return fused
