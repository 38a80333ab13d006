"""Backbones: encoders that turn an image into maps at strides 4, 8, 16, 32.

MiT and MobileNetV2 are those of `transformers`, with random weights or weights from a name on the
Hub or a local folder. Their configuration is kept (`settings`), so that a saved network is rebuilt
without either.
The ImageNet weights of MiT (`nvidia/mit-b5`) are licensed for research only; MobileNetV2 is not.
"""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipa.errors import PipaError, first_line
from pipa.models.segmenter import IMAGENET_MEAN, IMAGENET_STD

MIT = {  # SegFormer, table 6: widths and depths of the four stages
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}


class Backbone(nn.Module, ABC):
    """An encoder with four maps, at strides 4, 8, 16, 32; a dilated one ends with 8, 8, 8.

    Args:
        channels: Channels of the four maps.
        settings: The configuration, for JSON, that builds it again with random weights.
        mean: Mean of each input channel, in units of [0, 1].
        std: Standard deviation of each input channel, in units of [0, 1].
    """

    encoder: Any
    cpu_layout = torch.contiguous_format
    """Its fastest memory format on a CPU: see `use_fast_layout`."""
    frozen = freeze_norms = False

    def __init__(
        self,
        channels: list[int],
        settings: dict[str, Any],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.channels, self.settings = channels, settings
        self.mean, self.std = tuple(mean), tuple(std)

    @abstractmethod
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32."""

    def look(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[list[Float[Tensor, "b _ _ _"]], Float[Tensor, "b _ _ _"]]:
        """Return the four maps, and the coarsest map of the encoder itself: the last of the four.

        Backbones that make their maps from the encoder's, by layers of their own, override this.
        """
        maps: list[Tensor] = self(image)
        return maps, maps[-1]

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the layers of the encoder, in the order in which an image passes them."""

    def depths(self) -> dict[nn.Parameter, int]:
        """Return each parameter's layer: 0 before the first block, l in the l-th of len(blocks()).

        Modules between two blocks belong to the first of these, and modules after the last block
        (final norms, a pyramid) to that. Modules are registered in the order of their use.
        """
        blocks, depth = set(self.blocks()), 0
        found = {}
        for module in self.modules():
            depth += module in blocks
            for parameter in module.parameters(recurse=False):
                found[parameter] = depth
        return found

    def freeze(self, *, frozen: bool, freeze_norms: bool = False) -> None:
        """Freeze the encoder, or only its batch norms.

        Args:
            frozen: Train nothing of the encoder, and keep it in evaluation mode: norms keep their
                statistics, and there is no stochastic depth.
            freeze_norms: Keep the statistics of the batch norms; their scales and shifts learn.
        """
        self.frozen, self.freeze_norms = frozen, freeze_norms
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode of every module that is not frozen."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        elif self.freeze_norms:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class MiT(Backbone):
    """Mix Transformer (Xie et al.: SegFormer, NeurIPS 2021).

    Args:
        encoder: A `transformers.SegformerModel`.
        frozen: Train nothing, and stay in evaluation mode.
    """

    def __init__(self, encoder: Any, *, frozen: bool = False) -> None:
        settings = settings_of(encoder.config) | {"frozen": frozen}
        super().__init__(list(encoder.config.hidden_sizes), settings)
        self.encoder = encoder
        self.freeze(frozen=frozen)
        for name, module in encoder.named_modules():
            # The authors' blocks and stages use 1e-6, their patch embeddings and reductions torch's
            # 1e-5; transformers uses 1e-5 throughout.
            embeds = "patch_embeddings" in name or "sequence_reduction" in name
            if isinstance(module, nn.LayerNorm) and not embeds:
                module.eps = encoder.config.layer_norm_eps

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32."""
        return list(self.encoder(image, output_hidden_states=True).hidden_states)

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks of the four stages."""
        return [block for stage in self.encoder.stages for block in stage.blocks]


class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al., CVPR 2018), whose inputs are scaled to [-1, 1].

    Args:
        encoder: A `transformers.MobileNetV2Model`; its last 1x1 convolution is dropped.
        freeze_norms: Keep the statistics of the batch norms in training, too; right for pretrained
            weights, whose norms may be folded into the convolutions.
        frozen: Train nothing, and stay in evaluation mode.
    """

    cpu_layout = torch.channels_last
    LEVELS = (1, 4, 11, 15)  # the last block before each block of stride 2, and the last of all

    def __init__(self, encoder: Any, *, freeze_norms: bool, frozen: bool) -> None:
        channels = [encoder.layer[i].reduce_1x1.convolution.out_channels for i in self.LEVELS]
        arguments = {"freeze_norms": freeze_norms, "frozen": frozen}
        settings = settings_of(encoder.config) | arguments
        super().__init__(channels, settings, mean=(0.5,) * 3, std=(0.5,) * 3)
        encoder.conv_1x1 = nn.Identity()
        self.encoder = encoder
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.003  # TensorFlow's 0.997, which transformers copies
        self.freeze(frozen=frozen, freeze_norms=freeze_norms)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps of a normalised image at strides 4, 8, 16, 32."""
        maps = self.encoder(image, output_hidden_states=True).hidden_states
        return [maps[i] for i in self.LEVELS]

    def blocks(self) -> list[nn.Module]:
        """Return the inverted residual blocks."""
        return list(self.encoder.layer)


def mit(
    size: str = "b5",
    *,
    pretrained: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    drop_path: float = 0.1,
    frozen: bool = False,
) -> MiT:
    """Build a Mix Transformer.

    Args:
        size: "b0" ... "b5".
        pretrained: Name on the Hub ("nvidia/mit-b5") or a local folder; random weights when None.
        settings: The `settings` of an earlier backbone; they replace all other arguments.
        drop_path: Largest rate of stochastic depth, at the last block (DAFormer: 0.1).
        frozen: Train nothing, and stay in evaluation mode.

    Raises:
        PipaError: The weights cannot be loaded, or are of another size.
    """
    from transformers import SegformerConfig, SegformerModel

    if settings is not None:
        given = dict(settings)
        frozen = bool(given.pop("frozen", False))
        return MiT(SegformerModel(SegformerConfig(**given)), frozen=frozen)
    widths, depths = MIT[size]
    if pretrained is None:
        config = SegformerConfig(hidden_sizes=widths, depths=depths, drop_path_rate=drop_path)
        return MiT(SegformerModel(config), frozen=frozen)
    encoder = load_pretrained(SegformerModel, pretrained, drop_path_rate=drop_path)
    found = (tuple(encoder.config.hidden_sizes), tuple(encoder.config.depths))
    if found != (widths, depths):
        raise PipaError(
            f"is not MiT-{size.upper()}: widths {found[0]}, depths {found[1]}",
            pretrained,
            f"Give weights with widths {widths} and depths {depths}, or another size.",
        )
    return MiT(encoder, frozen=frozen)


def mobilenet_v2(
    *,
    pretrained: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    freeze_norms: bool | None = None,
    frozen: bool = False,
) -> MobileNetV2:
    """Build MobileNetV2 1.0, 2.2 M parameters.

    Args:
        pretrained: Name on the Hub or a local folder; random weights when None.
        settings: The `settings` of an earlier backbone; they replace all other arguments.
        freeze_norms: Keep the statistics of the batch norms; None: if the weights are pretrained.
        frozen: Train nothing, and stay in evaluation mode.

    Raises:
        PipaError: The weights cannot be loaded.
    """
    from transformers import MobileNetV2Config, MobileNetV2Model

    if settings is not None:
        given = dict(settings)
        freeze_norms, frozen = bool(given.pop("freeze_norms")), bool(given.pop("frozen", False))
        encoder = MobileNetV2Model(MobileNetV2Config(**given), add_pooling_layer=False)
    elif pretrained is None:
        encoder = MobileNetV2Model(MobileNetV2Config(), add_pooling_layer=False)
    else:
        encoder = load_pretrained(MobileNetV2Model, pretrained, add_pooling_layer=False)
    known = pretrained is not None if freeze_norms is None else freeze_norms
    return MobileNetV2(encoder, freeze_norms=known, frozen=frozen)


def settings_of(config: Any) -> dict[str, Any]:
    """Return the fields of a transformers configuration that build a network, without labels."""
    dropped = ("id2label", "label2id", "architectures", "dtype", "transformers_version")
    return {k: v for k, v in config.to_diff_dict().items() if k not in dropped}


def load_pretrained(kind: Any, where: str | Path, **options: Any) -> Any:
    """Load weights with `transformers`; refuse incomplete ones, since the rest would be random.

    Args:
        kind: A model class of transformers.
        where: Name on the Hub or a local folder.
        **options: Changes to the configuration.

    Raises:
        PipaError: The weights cannot be loaded, or belong to another network.
    """
    if Path(where).is_file():
        raise PipaError("is a file, not a folder", where, f"`pipa convert {where} OUT` makes one.")
    logger = logging.getLogger("transformers.configuration_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of another network it warns; our error names the weights
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            encoder, report = kind.from_pretrained(
                str(where), output_loading_info=True, dtype=torch.float32, **options
            )
    except Exception as error:  # the folder's files may be wrong in any way
        remedy = "Give a folder with config.json and model.safetensors, or a name on the Hub."
        raise PipaError(f"no pretrained weights: {first_line(error)}", where, remedy) from error
    finally:
        logger.setLevel(level)
    # Checkpoints have no norms after each stage: these start as the identity.
    missing = sorted(k for k in report["missing_keys"] if not k.startswith("hidden_states_norms."))
    if missing:
        raise PipaError(
            f"lacks weights of {kind.__name__}: {', '.join(missing[:5])}",
            where,
            "Give the weights of this very network.",
        )
    return encoder
