"""Backbones of `transformers.AutoBackbone`: ResNet, ConvNeXt V2, Swin V2, DINOv2, DINOv3, ...

Encoders with four stages have the four maps already. A plain vision transformer has one map, which
a simple feature pyramid (Li et al.: Exploring Plain Vision Transformer Backbones for Object
Detection, ECCV 2022, section 3) turns into four.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.errors import PipaError
from pipa.models.backbones import Backbone, load_pretrained, settings_of

LEVELS = 4
BLOCK = re.compile(r"(.*\.)?(layer\.\d+|(stages|layers)\.\d+\.(layers|blocks)\.\d+)")


class Staged(Backbone):
    """An encoder with stages at strides 4, 8, 16, 32.

    Args:
        encoder: A backbone of transformers with four maps.
        frozen: Train nothing, and stay in evaluation mode.
    """

    def __init__(self, encoder: Any, *, frozen: bool = False) -> None:
        super().__init__(list(encoder.channels), _settings(encoder) | {"frozen": frozen})
        self.encoder = encoder
        self.freeze(frozen=frozen)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32."""
        return list(self.encoder(image).feature_maps)

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of the four stages."""
        return _blocks(self.encoder)


class Plain(Backbone):
    """A plain vision transformer with a simple feature pyramid.

    The image is scaled so that one patch covers 16 of its pixels, whatever the patch size.

    Args:
        encoder: A backbone of transformers with one map.
        width: Channels of each map of the pyramid.
        frozen: Train the pyramid only; the encoder stays in evaluation mode.
    """

    def __init__(self, encoder: Any, *, width: int = 256, frozen: bool = False) -> None:
        arguments = {"width": width, "frozen": frozen}
        super().__init__([width] * LEVELS, _settings(encoder) | arguments)
        self.encoder, self.patch = encoder, int(encoder.config.patch_size)
        self.freeze(frozen=frozen)
        if hasattr(encoder.embeddings, "mask_token"):  # only pretraining uses it
            encoder.embeddings.mask_token.requires_grad_(False)
        (channels,) = encoder.channels
        half = channels // 2
        self.pyramid = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(channels, half, 2, stride=2),
                    nn.GroupNorm(1, half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, width, 2, stride=2),
                ),
                nn.ConvTranspose2d(channels, width, 2, stride=2),
                nn.Conv2d(channels, width, 1),
                nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(channels, width, 1)),
            ]
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32."""
        return self.look(image)[0]

    def look(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b _ _ _"]], Float[Tensor, "b _ _ _"]]:
        """Return the four maps of the pyramid, and the map of the encoder below it."""
        grid = [-(-side // 16) * self.patch for side in image.shape[-2:]]
        if grid != list(image.shape[-2:]):
            scaled = F.interpolate(image, grid, mode="bilinear", antialias=True)
        else:
            scaled = image
        (map_,) = self.encoder(scaled).feature_maps
        features = []
        for level, stage in enumerate(self.pyramid):
            size = [-(-side // 2 ** (level + 2)) for side in image.shape[-2:]]
            feature = stage(map_)
            same = list(feature.shape[-2:]) == size
            features.append(feature if same else F.interpolate(feature, size, mode="bilinear"))
        return features, map_

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks."""
        return _blocks(self.encoder)


def auto(
    *,
    pretrained: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    frozen: bool = False,
) -> Backbone:
    """Build any backbone of transformers.

    Args:
        pretrained: Name on the Hub ("facebook/convnextv2-tiny-22k-224") or a local folder.
        settings: The `settings` of an earlier backbone; its weights are random.
        frozen: Train nothing of the encoder, and keep it in evaluation mode; a pyramid on top of it
            still learns.

    Raises:
        PipaError: Both are missing, the weights cannot be loaded, or the encoder does not fit.
    """
    from transformers import AutoBackbone, AutoConfig

    if settings is not None:
        given = dict(settings)
        frozen, width = bool(given.pop("frozen", False)), given.pop("width", 256)
        indices = given.pop("out_indices")
        config = AutoConfig.for_model(given.pop("model_type"), **given)
        config.out_indices = indices
        encoder = AutoBackbone.from_config(config)  # type: ignore[no-untyped-call]
    elif pretrained is not None:
        width, (kind, indices) = 256, _recognise(pretrained)
        encoder = load_pretrained(kind, pretrained, out_indices=indices)
    else:
        raise PipaError("no pretrained weights are named", "student.pretrained", "Name some.")
    if len(encoder.channels) == LEVELS:
        return Staged(encoder, frozen=frozen)
    return Plain(encoder, width=width, frozen=frozen)


def _recognise(pretrained: str | Path) -> tuple[Any, list[int]]:
    """Return its class and the indices of its four stages, or of a plain transformer's last."""
    from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(pretrained))
        kind, stages = MODEL_FOR_BACKBONE_MAPPING[type(config)], config.stage_names
    except Exception as error:  # a config.json may be wrong in any way
        raise PipaError("is not a backbone of transformers", pretrained) from error
    return kind, [1, 2, 3, 4] if len(stages) == LEVELS + 1 else [len(stages) - 1]


def _blocks(encoder: Any) -> list[nn.Module]:
    """Find modules called `layer.3` in plain encoders, `stages.1.layers.3` in those with stages."""
    found = {name: module for name, module in encoder.named_modules() if BLOCK.fullmatch(name)}
    blocks = [
        module
        for name, module in found.items()
        if not any(name.startswith(f"{outer}.") for outer in found)  # a block may have layers
    ]
    if not blocks:
        kind = type(encoder).__name__
        raise PipaError(f"the layers of {kind} are unknown", remedy="Leave out layer_decay.")
    return blocks


def _settings(encoder: Any) -> dict[str, Any]:
    settings = settings_of(encoder.config)
    settings["out_indices"] = list(encoder.config.out_indices)
    return {k: v for k, v in settings.items() if k not in ("stage_names", "out_features")}
