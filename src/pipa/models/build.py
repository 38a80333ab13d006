"""Building of networks by name: HEAD_BACKBONE."""

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from pipa.errors import PipaError
from pipa.files.imports import import_class
from pipa.models.auto import auto
from pipa.models.backbones import MIT, Backbone, mit, mobilenet_v2
from pipa.models.daformer import DAFormerHead
from pipa.models.deeplab import DeepLabV2Head
from pipa.models.encoder_decoder import EncoderDecoder
from pipa.models.fpn import FPNHead
from pipa.models.hrda import HRDA
from pipa.models.resnet import RESNET, resnet
from pipa.models.segformer import SegFormerHead
from pipa.models.segmenter import Segmenter
from pipa.models.small import small

T = TypeVar("T")

BACKBONES: dict[str, Callable[..., Backbone]] = {
    **{f"mit_{size}": partial(mit, size) for size in MIT},
    **{f"resnet_{size}": partial(resnet, size) for size in RESNET},
    "mobilenet_v2": mobilenet_v2,
    "small": small,
    "auto": auto,
}
HEADS: dict[str, Callable[..., nn.Module]] = {
    "daformer": DAFormerHead,
    "segformer": SegFormerHead,
    "deeplabv2": DeepLabV2Head,
    "fpn": FPNHead,
}
ATTENTION: dict[str, dict[str, Any]] = {"daformer": {"dilations": None}}
"""Arguments in which HRDA's attention head differs from the head (HRDA@hrda_head.py)."""
HRDA_HEAD = {"small": "fpn"}
"""Head of HRDA by backbone, if the name has none; DAFormer's for all other backbones."""
SHORT = {"small": "fpn_small"}
ORIGIN = {"mit": "nvidia/mit-", "resnet": "microsoft/resnet-"}
"""Where the Hub has ImageNet's weights of a family of backbones."""


OTHER_ORIGIN = {"mobilenet_v2": "google/mobilenet_v2_1.0_224"}
"""ImageNet's weights of backbones that start without them unless they are asked for."""


def imagenet_weights(name: str) -> str | None:
    """Return the name on the Hub of ImageNet's weights for a network's backbone.

    Args:
        name: HEAD_BACKBONE.

    Returns:
        None for a backbone other than MiT and ResNet.
    """
    known = re.search(r"_(mit|resnet)_(\w+)$", name)
    return ORIGIN[known[1]] + known[2] if known else None


def create_segmenter(
    name: str,
    num_classes: int,
    *,
    pretrained: str | Path | None = None,
    backbone: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    **options: Any,
) -> Segmenter:
    """Build a network by its name, HEAD_BACKBONE.

    Args:
        name: daformer, segformer, deeplabv2, fpn or hrda; then mit_b0 ... mit_b5, resnet_50,
            resnet_101, mobilenet_v2, small, or auto for any backbone of transformers that
            `pretrained` names. "small" is short for "fpn_small". HRDA has DAFormer's head, with
            "small" fpn, or the head in its name: "hrda_deeplabv2_resnet_101". Or the dotted name of
            a class of your own, a `Segmenter` that is built with `num_classes` and the options.
        num_classes: Number of classes, k.
        pretrained: Weights of the backbone: a name on the Hub ("nvidia/mit-b5") or a local folder;
            None: random.
        backbone: Arguments of the backbone: `frozen` (not of "small"), `drop_path` of MiT,
            `freeze_norms` of ResNet and MobileNetV2, `dilated` of ResNet, or the `settings` of
            an earlier one.
        head: Arguments of the head: `width`, `dropout`; deeplabv2 has only `dilations`.
        **options: Arguments of the segmenter: `window`, `stride`, `chunk`; HRDA also has `detail`,
            `detail_weight`, `detail_chunk`, `detail_stride`.

    Returns:
        The network, in training mode: from RGB images (b, 3, h, w) in [0, 1] to logits
        (b, k, h, w).

    Raises:
        PipaError: The name or an option is unknown, or the weights cannot be loaded.

    Examples:
        >>> model = pipa.create_segmenter("segformer_mit_b0", num_classes=19)
        >>> model(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 19, 64, 96])
        >>> model.predict(torch.rand(3, 64, 96)).shape  # class ids
        (64, 96)
    """
    if "." in name:
        return _own(name, num_classes, pretrained, backbone=backbone, head=head, **options)
    kind, decoder, encoder = _parts(name)
    given = dict(backbone or {})
    if pretrained is not None:
        given["pretrained"] = pretrained
    body = _call(BACKBONES[encoder], given, f"the backbone of {name}")

    def build_head(**fixed: Any) -> nn.Module:
        make = partial(HEADS[decoder], body.channels, num_classes)
        return _call(make, {**(head or {}), **fixed}, f"the head of {name}")

    parts: list[nn.Module] = [build_head()]
    if kind == "hrda":
        parts.append(build_head(**ATTENTION.get(decoder, {})))
    make = HRDA if kind == "hrda" else EncoderDecoder
    model: Segmenter = _call(partial(make, body, *parts), options, name)
    if any(not parameter.numel() for parameter in model.parameters()):
        raise ValueError("a layer without channels")
    model.config = {
        "name": name,
        "num_classes": num_classes,
        "backbone": {"settings": body.settings},
        "head": dict(head or {}),
        **options,
    }
    return model.train()  # pretrained encoders of transformers are in evaluation mode


def refuse_unknown(name: str) -> None:
    """Check the name of a network without building it.

    Raises:
        PipaError: No network is called so, or a class of the user's own cannot be imported.
    """
    if "." in name:
        import_class(name, "--student.name", Segmenter)
    else:
        _parts(name)


def _own(name: str, num_classes: int, pretrained: str | Path | None, **options: Any) -> Segmenter:
    """Build a network of the user's own; its `config` leads back to it, with the weights saved."""
    make = partial(import_class(name, "--student.name", Segmenter), num_classes)
    given = {key: value for key, value in options.items() if value is not None}
    weights = {} if pretrained is None else {"pretrained": pretrained}
    try:
        model: Segmenter = _call(make, given | weights, name)
    except TypeError as error:
        raise PipaError(f"{name} cannot be built ({error})", "--student.name") from error
    model.config = {"name": name, "num_classes": num_classes, **given}
    return model.train()


def _parts(name: str) -> tuple[str, str, str]:
    """Split a name into kind of segmenter, head and backbone."""
    kind, _, encoder = SHORT.get(name, name).partition("_")
    decoder = kind
    if kind == "hrda":
        first, _, rest = encoder.partition("_")
        default = HRDA_HEAD.get(encoder, "daformer")
        decoder, encoder = (first, rest) if first in HEADS else (default, encoder)
    if decoder not in HEADS or encoder not in BACKBONES:
        raise PipaError(
            f"no network is called {name!r}",
            remedy=f"A name is one of {', '.join(HEADS)}, hrda, then _, then one of "
            f"{', '.join(BACKBONES)}; or MODULE.CLASS of your own.",
        )
    return kind, decoder, encoder


def _call(function: Callable[..., T], options: Mapping[str, Any], where: str) -> T:
    """Call with keywords from a file; report unknown ones to the user."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    known = [one.name for one in parameters if one.kind in named]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PipaError(
            f"{where} has no option {', '.join(unknown)}", remedy=f"It has {', '.join(known)}."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")  # is refused at the end
        return function(**options)
