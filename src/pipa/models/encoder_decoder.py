"""The plain segmenter: one backbone and one head on the whole image (DAFormer, SegFormer, ...)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.models.backbones import Backbone
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.models.windows import enlarge, whole

MIN_SIDE = 32
"""Minimum side of an image, in pixels: every backbone has a map at stride 32."""


class EncoderDecoder(Segmenter):
    """Backbone -> four maps -> head -> logits at stride 4.

    Args:
        backbone: From an image to maps at strides 4, 8, 16, 32.
        head: From these maps to logits at stride 4; it has `num_classes`.
        window: Side of the window that slides over an image in `predict`, in pixels.
        stride: Pixels from one window to the next.
        chunk: Windows that go through the network together in `predict`.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        window: int = 1024,
        stride: int = 768,
        chunk: int = 1,
    ) -> None:
        super().__init__(
            int(head.num_classes),  # type: ignore[arg-type]
            mean=backbone.mean,
            std=backbone.std,
            window=window,
            stride=stride,
            chunk=chunk,
        )
        self.backbone = backbone
        self.head = head
        self.fused_channels = getattr(head, "width", None)

    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Return one output and one view of the whole image; the view is context and detail."""
        view = self.context(image)
        logits, view.fused = self.head(view.features)
        return Prediction([Output(logits, view.box, 1.0)], view, view)

    def context(self, image: Float[Tensor, "b 3 h w"]) -> View:
        """Return the view of the whole image."""
        features, encoded = self.backbone.look(self.normalise(image))
        return View(features, whole(image), encoded)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits at the input's size; images smaller than 32 pixels are padded first."""
        height, width = image.shape[-2:]
        image = enlarge(image, minimum=MIN_SIDE)
        logits = self.head(self.backbone(self.normalise(image))).logits
        logits = F.interpolate(logits, image.shape[-2:], mode="bilinear")
        return logits[..., :height, :width]
