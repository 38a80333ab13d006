"""ResNet-50 and ResNet-101, the backbones of DeepLabV2 in papers on domain adaptation.

He et al.: Deep Residual Learning (CVPR 2016), as in `transformers`: the stride of a bottleneck is
in its 3x3 convolution. Weights are random, or come from a name on the Hub ("microsoft/resnet-101")
or a folder.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pipa.errors import PipaError
from pipa.models.backbones import Backbone, load_pretrained, settings_of

RESNET = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}  # table 1: blocks of the four stages


class ResNet(Backbone):
    """ResNet with maps at strides 4, 8, 16, 32, or 4, 8, 8, 8.

    Args:
        encoder: A `transformers.ResNetModel`.
        dilated: Use dilations 2 and 4 instead of the strides of the last two stages.
        freeze_norms: Keep the statistics of the batch norms in training, too.
        frozen: Train nothing, and stay in evaluation mode.
    """

    def __init__(self, encoder: Any, *, dilated: bool, freeze_norms: bool, frozen: bool) -> None:
        arguments = {"dilated": dilated, "freeze_norms": freeze_norms, "frozen": frozen}
        super().__init__(list(encoder.config.hidden_sizes), settings_of(encoder.config) | arguments)
        if dilated:
            _dilate(encoder.encoder.stages[2:])
        self.encoder = encoder
        self.freeze(frozen=frozen, freeze_norms=freeze_norms)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32; dilated: 4, 8, 8, 8."""
        return list(self.encoder(image, output_hidden_states=True).hidden_states[1:])

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks of the four stages."""
        return [block for stage in self.encoder.encoder.stages for block in stage.layers]


def _dilate(stages: Any) -> None:
    """Turn strides into dilations of all later convolutions.

    Every other row and column of the new maps equals the old maps, so pretrained weights stay
    valid. The code of AdaptSegNet, ADVENT and DACS also dilates the first block of a stage;
    DAFormer's (`contract_dilation`) does not.
    """
    rate = 1
    for block in (block for stage in stages for block in stage.layers):
        for module in block.shortcut.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        for convolution in (unit.convolution for unit in block.layer):
            (stride, _), (side, _) = convolution.stride, convolution.kernel_size
            convolution.stride, convolution.dilation = (1, 1), (rate, rate)
            convolution.padding = (rate * (side // 2),) * 2
            rate *= stride


def resnet(
    size: str = "101",
    *,
    pretrained: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    dilated: bool = True,
    freeze_norms: bool = False,
    frozen: bool = False,
) -> ResNet:
    """Build a ResNet.

    Args:
        size: "50" or "101".
        pretrained: Name on the Hub ("microsoft/resnet-101") or a local folder; random weights when
            None.
        settings: The `settings` of an earlier backbone; they replace all other arguments.
        dilated: Maps at strides 4, 8, 8, 8, as in AdaptSegNet, ADVENT, DACS and DAFormer with
            ResNet-101; else 4, 8, 16, 32, which is a fraction of the work.
        freeze_norms: Keep the statistics of the batch norms; their scales and shifts learn. False:
            everything learns, as in DAFormer's configurations (AdaptSegNet, ADVENT, DACS:
            statistics follow the batches, scales and shifts stay).
        frozen: Train nothing, and stay in evaluation mode.

    Raises:
        PipaError: The weights cannot be loaded, or are of another size.
    """
    from transformers import ResNetConfig, ResNetModel

    if settings is not None:
        given = dict(settings)
        flags = {flag: bool(given.pop(flag)) for flag in ("dilated", "freeze_norms", "frozen")}
        return ResNet(ResNetModel(ResNetConfig(**given)), **flags)
    if pretrained is None:
        encoder = ResNetModel(ResNetConfig(depths=RESNET[size]))
    else:
        encoder = load_pretrained(ResNetModel, pretrained)
    found = tuple(encoder.config.depths or ())
    if found != RESNET[size] or encoder.config.layer_type != "bottleneck":
        raise PipaError(
            f"is not ResNet-{size}: {'-'.join(map(str, found))} {encoder.config.layer_type} blocks",
            pretrained,
            f"Give weights with {'-'.join(map(str, RESNET[size]))} bottleneck blocks.",
        )
    return ResNet(encoder, dilated=dilated, freeze_norms=freeze_norms, frozen=frozen)
