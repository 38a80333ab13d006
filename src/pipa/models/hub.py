"""Networks by name, and on disk: `model.safetensors` and a `config.json` that rebuilds it."""

import inspect
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipa.errors import PipaError
from pipa.models.auto import auto
from pipa.models.backbones import MIT, Backbone, mit, mobilenet_v2
from pipa.models.checkpoint import build_with, read_checkpoint
from pipa.models.daformer import DAFormerHead
from pipa.models.deeplab import DeepLabV2Head
from pipa.models.encoder_decoder import EncoderDecoder
from pipa.models.fpn import FPNHead
from pipa.models.hrda import HRDA
from pipa.models.resnet import RESNET, resnet
from pipa.models.segformer import SegFormerHead
from pipa.models.segmenter import Legend, Segmenter
from pipa.models.small import small

Weights = Literal["student", "teacher"]
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
"""What HRDA's attention head has other than the head itself (HRDA@hrda_head.py)."""
HRDA_HEAD = {"small": "fpn"}
"""Heads in HRDA where the name tells none; DAFormer's for all other backbones."""
SHORT = {"small": "fpn_small"}


@runtime_checkable
class Labels(Protocol):
    """What is known of the classes; `pipa.LabelSpace` and `Legend` both are."""

    @property
    def names(self) -> Sequence[str]:
        """Of each class, by id."""

    @property
    def colours(self) -> Sequence[Sequence[int]]:
        """RGB of each class, by id."""


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
            "small" fpn, or the one between: "hrda_deeplabv2_resnet_101".
        num_classes: Number of classes, k.
        pretrained: Weights of the backbone: a name on the Hub ("nvidia/mit-b5") or a local folder;
            None: random.
        backbone: Arguments of the backbone: `frozen` (not of "small"), `drop_path` of MiT,
            `freeze_norms` of ResNet and MobileNetV2, `dilated` of ResNet, or `settings` of an
            earlier one.
        head: Arguments of the head: `width`, `dropout`; of deeplabv2 `dilations` alone.
        **options: Arguments of the segmenter: `window`, `stride`, `chunk`; of HRDA also `detail`,
            `detail_weight`, `detail_chunk`.

    Raises:
        PipaError: The name or an option is not known, or the weights cannot be had.
    """
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
    model.config = {
        "name": name,
        "num_classes": num_classes,
        "backbone": {"settings": body.settings},
        "head": dict(head or {}),
        **options,
    }
    return model.train()  # transformers hands pretrained encoders over in evaluation mode


def _parts(name: str) -> tuple[str, str, str]:
    """Kind of segmenter, head and backbone."""
    kind, _, encoder = SHORT.get(name, name).partition("_")
    decoder = kind
    if kind == "hrda":
        first, _, rest = encoder.partition("_")
        told = (first, rest) if first in HEADS else (HRDA_HEAD.get(encoder, "daformer"), encoder)
        decoder, encoder = told
    if decoder not in HEADS or encoder not in BACKBONES:
        raise PipaError(
            f"no network is called {name!r}",
            remedy=f"A name is one of {', '.join(HEADS)}, hrda, then _, then one of "
            f"{', '.join(BACKBONES)}.",
        )
    return kind, decoder, encoder


def _call(function: Callable[..., T], options: Mapping[str, Any], where: str) -> T:
    """Call with keywords that came from a file; an unknown one is the user's to mend."""
    known = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PipaError(
            f"{where} has no option {', '.join(unknown)}", remedy=f"It has {', '.join(known)}."
        )
    return function(**options)


def save_segmenter(
    model: Segmenter,
    folder: Path | str,
    labels: Labels | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write `model.safetensors` and `config.json`, both or neither.

    Args:
        model: A network of `create_segmenter` or `load_segmenter`.
        folder: Where to; a saved network that is there is replaced.
        labels: Names and colours of the classes; those of `model` when None.
        metadata: Anything else worth keeping, for JSON.

    Raises:
        PipaError: The folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    known: Labels | None = labels if labels is not None else model.labels
    config = {
        "format": "pipa-segmenter",
        "version": 1,
        "segmenter": model.config,
        "labels": None if known is None else _plain(known),
        "metadata": dict(metadata or {}),
    }
    if folder.exists() and not _holds_only_ours(folder):
        raise PipaError("is there already, and not a saved network", folder, "Name another folder.")
    # A neighbour takes the weights first, so that a full disk leaves no half of a network.
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        fresh.mkdir(parents=True)
        state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
        save_file(state, fresh / "model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=1, ensure_ascii=False)
        (fresh / "config.json").write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except (OSError, SafetensorError) as error:
        raise PipaError(f"cannot be written: {error}", folder) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _holds_only_ours(folder: Path) -> bool:
    return folder.is_dir() and {p.name for p in folder.iterdir()} <= {
        "config.json",
        "model.safetensors",
    }


def _plain(labels: Labels) -> dict[str, Any]:
    return {
        "names": list(labels.names),
        "colours": [[int(value) for value in colour] for colour in labels.colours],
    }


def load_segmenter(path: Path | str, weights: Weights = "student") -> Segmenter:
    """Read a network in evaluation mode; its `labels` are known if they were when it was saved.

    Args:
        path: A folder of `save_segmenter`, the folder of a run, a run's `.ckpt`, or a `.pth` of the
            authors of DAFormer, HRDA, MIC or PiPa.
        weights: Which network of a checkpoint: the student, or its moving average.

    Raises:
        PipaError: There is nothing of the kind, or it is damaged or in part.
    """
    path = Path(path)
    if path.name in ("config.json", "model.safetensors"):
        path = path.parent
    if path.is_dir():
        return _load_folder(path, weights).eval()
    content = read_checkpoint(path)
    if "pytorch-lightning_version" in content:
        return _load_run(content, path, weights).eval()
    from pipa.interop.mmseg import load

    return load(content, path, weights=weights).eval()


def _load_folder(folder: Path, weights: Weights) -> Segmenter:
    if not (folder / "config.json").exists() and (folder / "model/config.json").exists():
        folder = folder / "model"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipaError(
            "holds no network",
            folder,
            "It needs a config.json; of a run that did not end, give checkpoints/last.ckpt.",
        ) from error
    if not isinstance(config, dict) or config.get("format") != "pipa-segmenter":
        raise PipaError(
            "its config.json is not of a pipa network",
            folder,
            "Weights of a backbone go to --student.pretrained, checkpoints to `pipa convert`.",
        )
    if weights == "teacher" and config["metadata"].get("weights") != "teacher":
        raise PipaError(
            "holds the student only", folder, "The teacher is in checkpoints/last.ckpt of the run."
        )
    file = folder / "model.safetensors"
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise PipaError(f"cannot be read: {error}", file) from error
    model = build_with(lambda: create_segmenter(**config["segmenter"]), state, file)
    model.labels = _legend(config["labels"])
    return model


def _load_run(content: Mapping[str, Any], path: Path, weights: Weights) -> Segmenter:
    """From a checkpoint of Lightning, where the teacher lies beside the student."""
    prefix = {"student": "student.", "teacher": "teacher.network."}[weights]
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(prefix)
    }
    told = content.get("hyper_parameters", {})
    if not state or "student" not in told:
        raise PipaError(f"is a checkpoint of Lightning without a {weights} of pipa", path)
    model = build_with(lambda: create_segmenter(**told["student"]), state, path)
    model.labels = _legend(told.get("labels"))
    return model


def _legend(plain: Mapping[str, Any] | None) -> Legend | None:
    if plain is None:
        return None
    colours = tuple((int(r), int(g), int(b)) for r, g, b in plain["colours"])
    return Legend(tuple(plain["names"]), colours)
