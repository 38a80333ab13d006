"""Conversion of checkpoints of DAFormer, HRDA, MIC and PiPa (mmsegmentation's names), and of MiT.

A conversion is a table (`mmseg_names`), exhaustive on both sides: every foreign name matches one
rule or one declared drop, and the result has exactly the names and shapes of our network.
Nothing is guessed, nothing is loaded in part, and no pickled code runs.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.models.backbones import MIT, mit
from pipa.models.build import create_segmenter
from pipa.models.checkpoint import build_with, check_names
from pipa.models.mmseg_names import (
    DROPPED,
    DROPPED_BESIDE,
    DROPPED_OF_ENCODER,
    ENCODER,
    SEGMENTER,
    Rule,
)
from pipa.models.segmenter import Segmenter

Weights = Literal["student", "teacher"]
"""A network of a checkpoint: the student, or its moving average."""
State = Mapping[str, Tensor]


PREFIX = {"student": "model.", "teacher": "ema_model."}


def load(
    content: Mapping[str, Any], path: Path, weights: Weights = "student"
) -> tuple[Segmenter, list[str]]:
    """Build our network with the weights of an authors' checkpoint; return it and a report.

    Args:
        content: The result of `read_checkpoint`.
        path: The file, for errors.
        weights: The student, or its moving average.

    Raises:
        PipaError: A name is unknown or missing.
    """
    beside = _tensors(content, path)
    if is_encoder(content, path):
        raise PipaError(
            "holds a backbone without a head",
            path,
            f"`pipa convert {path} OUT` makes a folder for --student.pretrained.",
        )
    state, lines = _choose(beside, path, weights)
    ours, gone = rename(state, SEGMENTER, DROPPED, path)
    lines += [f"dropped {count} of {why}" for why, count in gone.items()]
    name, classes, width = _architecture(ours, path)
    model = build_with(lambda: create_segmenter(name, classes, head={"width": width}), ours, path)
    model.labels = _label_space(content.get("meta"), classes)
    return model, [f"{name}, {classes} classes, {len(state) - sum(gone.values())} tensors", *lines]


def is_encoder(content: Mapping[str, Any], path: Path) -> bool:
    """Whether these are the weights of a MiT without a head."""
    state = _tensors(content, path)
    return any(re.match(r"(patch_embed1|encoder|stages)\.", name) for name in state)


def convert_encoder(content: Mapping[str, Any], path: Path, out: Path) -> str:
    """Write MiT's ImageNet weights as a folder of transformers; return a report.

    Raises:
        PipaError: A name is unknown, or `out` exists already.
    """
    ours, gone = rename(_tensors(content, path), ENCODER, DROPPED_OF_ENCODER, path)
    size = _size(ours, path)
    encoder = mit(size).encoder
    check_names(encoder.state_dict(), ours, path)
    encoder.load_state_dict(ours)
    if out.exists():
        raise PipaError("is there already", out, "Name another folder.")
    fresh = out.with_name(f".{out.name}.new")
    try:
        encoder.save_pretrained(fresh)
        fresh.rename(out)
    except OSError as error:
        raise PipaError(f"cannot be written: {error}", out) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    lines = [f"mit_{size}, a backbone, {len(ours)} tensors"]
    lines += [f"dropped {count} of {why}" for why, count in gone.items()]
    return "\n".join([*lines, f"written to {out}: train with --student.pretrained {out}"])


def rename(
    theirs: State, rules: list[Rule], dropped: Mapping[str, str], where: Path
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename foreign weights to our names; count the dropped names by reason.

    Args:
        theirs: The foreign weights by name.
        rules: The rules; exactly one must match each name that is not dropped.
        dropped: Reasons for dropping names, by the pattern of the names.
        where: The file that an error names.

    Raises:
        PipaError: No rule, or several, match some names; the error lists them.
    """
    ours: dict[str, Tensor] = {}
    gone: dict[str, int] = {}
    unknown = []
    for name, tensor in theirs.items():
        reasons = [why for pattern, why in dropped.items() if re.fullmatch(pattern, name)]
        hits = [rule for rule in rules if re.fullmatch(rule.pattern, name)]
        if reasons and not hits:
            gone[reasons[0]] = gone.get(reasons[0], 0) + 1
        elif len(hits) == 1:
            new = [re.sub(hits[0].pattern, our, name) for our in hits[0].ours]
            ours.update(zip(new, hits[0].change(tensor), strict=True))
        else:
            unknown.append(name)
    if unknown:
        names = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if unknown[8:] else "")
        raise PipaError(
            f"is no checkpoint of PiPa, HRDA, DAFormer, MIC or MiT; unexpected: {names}", where
        )
    return ours, gone


def _tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    found = content.get("state_dict", content)
    if not isinstance(found, Mapping) or not found:
        raise PipaError("holds no weights", path)
    foreign = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if foreign:
        raise PipaError(f"holds no weights under {', '.join(foreign[:5])}", path)
    return {str(name).removeprefix("segformer."): value for name, value in found.items()}


def _choose(state: State, path: Path, weights: Weights) -> tuple[State, list[str]]:
    """Choose one of the networks in a checkpoint of self-training; return it and a report."""
    if not any(name.startswith("model.") for name in state):
        if weights == "teacher":
            raise PipaError("holds one network, no teacher beside it", path)
        return state, []
    prefix = PREFIX[weights]
    chosen = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if not chosen:
        raise PipaError(f"holds no {weights} ({prefix}*)", path)
    other = {"student": r"ema_model\..+", "teacher": r"model\..+"}[weights]
    rest = {n: t for n, t in state.items() if not n.startswith(prefix)}
    reasons = DROPPED_BESIDE | {other: "the other network of student and teacher"}
    _, gone = rename(rest, [], reasons, path)
    return chosen, [f"the {weights}; dropped {count} of {why}" for why, count in gone.items()]


def _architecture(ours: State, path: Path) -> tuple[str, int, int]:
    """Infer the name, number of classes and width of the head from the shapes."""
    size = _size({n.removeprefix("backbone.encoder."): t for n, t in ours.items()}, path)
    classify, embed = ours.get("head.classify.weight"), ours.get("head.embed.0.weight")
    if classify is None or embed is None:
        raise PipaError("holds no head of DAFormer; missing: decode_head.conv_seg", path)
    kind = "hrda" if any(name.startswith("attention_head.") for name in ours) else "daformer"
    return f"{kind}_mit_{size}", len(classify), len(embed)


def _size(encoder: State, path: Path) -> str:
    """Return the size of the MiT with these widths and depths."""
    embeds = [encoder.get(f"stages.{i}.patch_embeddings.proj.weight") for i in range(4)]
    widths = tuple(0 if weight is None else len(weight) for weight in embeds)
    numbers = [re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name) for name in encoder]
    pairs = {(int(hit[1]), int(hit[2])) for hit in numbers if hit}
    depths = tuple(sum(stage == i for stage, _ in pairs) for i in range(4))
    for size, shape in MIT.items():
        if shape == (widths, depths):
            return size
    raise PipaError(f"holds no MiT-B0 to B5; widths {widths}, depths {depths}", path)


def _label_space(meta: Any, classes: int) -> LabelSpace | None:
    """Return names and colours, if mmsegmentation wrote them beside the weights."""
    names, palette = (meta or {}).get("CLASSES"), (meta or {}).get("PALETTE")
    if names is None or palette is None or not len(names) == len(palette) == classes:
        return None
    colours = tuple((int(r), int(g), int(b)) for r, g, b in palette)
    return LabelSpace(tuple(str(name) for name in names), colours)
