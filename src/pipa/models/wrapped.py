"""Any network of yours as a `Segmenter`, so that PiPa's terms can be used in your own loop."""

from collections.abc import Sequence
from types import SimpleNamespace

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.errors import PipaError
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.models.windows import whole


class Wrapped(Segmenter):
    """A network that returns its logits and some of its feature maps.

    Args:
        network: A `torch.nn.Module` that turns RGB images (b, 3, h, w) in [0, 1] into a pair:
            logits (b, k, _, _) of any stride, and a list of feature maps (b, c_i, h_i, w_i), the
            finest first. It normalises its input itself.
        num_classes: Number of classes, k.
        channels: Channels c_i of the maps.

    Raises:
        PipaError: The network is a function: nobody would know its layers, to train or move them.

    Examples:
        >>> class Network(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encode = torch.nn.Conv2d(3, 16, 3, stride=4, padding=1)
        ...         self.decode = torch.nn.Conv2d(16, 5, 1)
        ...
        ...     def forward(self, image):
        ...         features = self.encode(image).relu()
        ...         return self.decode(features), [features]
        >>> student = pipa.Wrapped(Network(), num_classes=5, channels=[16])
        >>> student.predict(torch.rand(3, 32, 48)).shape
        (32, 48)
    """

    def __init__(
        self,
        network: object,
        num_classes: int,
        channels: Sequence[int],
    ) -> None:
        if not isinstance(network, nn.Module):
            problem = f"a {type(network).__name__} has no layers that could be trained"
            raise PipaError(problem, "Wrapped", "Give a torch.nn.Module.")
        super().__init__(num_classes, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.network = network
        self.backbone = SimpleNamespace(channels=list(channels))

    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Return one output and one view of the whole image; the view is context and detail."""
        logits, features = self.network(image)
        view = View(features, whole(image))
        return Prediction([Output(logits, view.box, 1.0)], view, view)

    def context(self, image: Float[Tensor, "b 3 h w"]) -> View:
        """Return the view of the whole image."""
        return View(self.network(image)[1], whole(image))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits at the input's size."""
        return F.interpolate(self.network(image)[0], image.shape[-2:], mode="bilinear")
