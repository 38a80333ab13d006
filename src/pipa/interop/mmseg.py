"""Checkpoints of DAFormer, HRDA, MIC and PiPa (mmsegmentation's names), and of MiT alone.

A conversion is a table, exhaustive on both sides: every foreign name matches exactly one rule or
one declared drop, and what results has exactly the names and shapes of our network. Nothing is
guessed, nothing is loaded in part, and no pickled code runs.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipa.errors import PipaError
from pipa.models.backbones import MIT, mit
from pipa.models.checkpoint import build_with, check_names, read_checkpoint
from pipa.models.hub import Weights, create_segmenter, load_segmenter, save_segmenter
from pipa.models.segmenter import Legend, Segmenter

State = Mapping[str, Tensor]


def _same(tensor: Tensor) -> list[Tensor]:
    return [tensor]


def _halves(tensor: Tensor) -> list[Tensor]:
    """Keys and values: the authors compute both by one matrix."""
    return list(tensor.chunk(2))


def _kernel(tensor: Tensor) -> list[Tensor]:
    """A linear layer over the channels is a 1x1 convolution."""
    return [tensor[:, :, None, None]]


@dataclass(frozen=True)
class Rule:
    """Foreign names that match `pattern` in whole become each of `ours`, with its groups."""

    pattern: str
    ours: tuple[str, ...]
    change: Callable[[Tensor], list[Tensor]] = _same


def _renames(table: Mapping[str, str], prefix: str, ours: str) -> list[Rule]:
    return [
        Rule(re.escape(prefix + old) + r"\.(.+)", (f"{ours}{new}.\\1",))
        for old, new in table.items()
    ]


BLOCK = {  # DAFormer@mix_transformer.py -> transformers.SegformerModel
    "norm1": "layernorm_before",
    "attn.q": "attention.q_proj",
    "attn.proj": "attention.o_proj",
    "attn.sr": "attention.sequence_reduction.sequence_reduction",
    "attn.norm": "attention.sequence_reduction.layer_norm",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.fc2": "mlp.fc2",
}
OLD_BLOCK = {  # transformers before 5.x, and every file on the Hub
    "layer_norm_1": "layernorm_before",
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "attention.self.sr": "attention.sequence_reduction.sequence_reduction",
    "attention.self.layer_norm": "attention.sequence_reduction.layer_norm",
    "layer_norm_2": "layernorm_after",
    "mlp.dense1": "mlp.fc1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.dense2": "mlp.fc2",
}
FUSION = {  # DAFormer@daformer_head.py, ASPPWrapper -> pipa.models.daformer
    "aspp_modules.0.conv": "branches.0.0.0",
    "aspp_modules.0.bn": "branches.0.0.1",
    **{
        f"aspp_modules.{i}.{old}": f"branches.{i}.{new}"
        for i in (1, 2, 3)
        for old, new in {
            "depthwise_conv.conv": "0.0",
            "depthwise_conv.bn": "0.1",
            "pointwise_conv.conv": "1.0",
            "pointwise_conv.bn": "1.1",
        }.items()
    },
    "bottleneck.conv": "bottleneck.0",
    "bottleneck.bn": "bottleneck.1",
    "conv": "0",  # HRDA's scale attention fuses by one convolution
    "bn": "1",
}


def _stage_rules(number: int) -> list[Rule]:
    """Names of one stage of MiT: the authors count from 1, transformers from 0."""
    theirs, ours = number + 1, f"stages.{number}."
    blocks = [
        Rule(rf"block{theirs}\.(\d+)\.{re.escape(old)}\.(.+)", (rf"{ours}blocks.\1.{new}.\2",))
        for old, new in BLOCK.items()
    ]
    old_blocks = [
        Rule(
            rf"encoder\.block\.{number}\.(\d+)\.{re.escape(old)}\.(.+)",
            (rf"{ours}blocks.\1.{new}.\2",),
        )
        for old, new in OLD_BLOCK.items()
    ]
    both = tuple(rf"{ours}blocks.\1.attention.{name}.\2" for name in ("k_proj", "v_proj"))
    return [
        *_renames(
            {"proj": "proj", "norm": "layer_norm"},
            f"patch_embed{theirs}.",
            f"{ours}patch_embeddings.",
        ),
        *blocks,
        Rule(rf"block{theirs}\.(\d+)\.attn\.kv\.(.+)", both, _halves),
        *_renames({f"norm{theirs}": "layer_norm"}, "", ours),
        *_renames({f"encoder.patch_embeddings.{number}": "patch_embeddings"}, "", ours),
        *old_blocks,
        *_renames({f"encoder.layer_norm.{number}": "layer_norm"}, "", ours),
    ]


def _head_rules(theirs: str, ours: str) -> list[Rule]:
    embed = re.escape(theirs) + r"embed_layers\.(\d+)\.proj\."
    return [
        Rule(embed + "weight", (rf"{ours}embed.\1.weight",), _kernel),
        Rule(embed + "bias", (rf"{ours}embed.\1.bias",)),
        *_renames(FUSION, f"{theirs}fuse_layer.", f"{ours}fuse."),
        *_renames({"conv_seg": "classify"}, theirs, ours),
    ]


ENCODER = [
    *(rule for number in range(4) for rule in _stage_rules(number)),
    Rule(r"stages\..+", (r"\g<0>",)),  # transformers as it is today
]
SEGMENTER = [
    *(
        Rule(rf"backbone\.{r.pattern}", tuple(f"backbone.encoder.{o}" for o in r.ours), r.change)
        for r in ENCODER
    ),
    *_head_rules("decode_head.", "head."),
    *_head_rules("decode_head.head.", "head."),
    *_head_rules("decode_head.scale_attention.", "attention_head."),
]
DROPPED = {
    r"cls_head\..+": "PiPa's classifier for hard anchors, which was never trained",
    r"proj_head\..+": "PiPa's pixel projection, of use in training only",
}
DROPPED_BESIDE = {
    r"imnet_model\..+": "the ImageNet encoder for the feature distance",
    r"project\..+": "PiPa's patch projection, of use in training only",
    r"classifier\..+": "PiPa's patch classifier, which was never trained",
}
DROPPED_OF_ENCODER = {
    r"(head|classifier)\..+": "the classifier of ImageNet",
}
PREFIX = {"student": "model.", "teacher": "ema_model."}


def load(content: Mapping[str, Any], path: Path, weights: Weights = "student") -> Segmenter:
    """Our network with the weights of an authors' checkpoint.

    Args:
        content: What `read_checkpoint` found.
        path: The file, for complaints.
        weights: The student, or its moving average.

    Raises:
        PipaError: A name is not known, or one is missing.
    """
    return _convert(content, path, weights)[0]


def convert(checkpoint: Path | str, out: Path | str, weights: Weights = "student") -> str:
    """Turn a checkpoint into a folder of ours, and tell what was done.

    Args:
        checkpoint: A `.pth` of PiPa, HRDA, DAFormer or MIC, a `.pth` or `.bin` of MiT, or a run's
            `.ckpt`.
        out: The folder; for MiT, one that `pretrained` takes.
        weights: The student, or its moving average.

    Raises:
        PipaError: The file cannot be read, names are unknown or missing, or `out` is not ours.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    content = read_checkpoint(checkpoint)
    told = {"converted_from": checkpoint.name, "weights": weights}
    if "pytorch-lightning_version" in content:
        model = load_segmenter(checkpoint, weights)
        save_segmenter(model, out, metadata=told)
        return f"{model.config['name']}: the {weights} of a run\nwritten to {out}"
    if _is_encoder(_tensors(content, checkpoint)):
        return _convert_encoder(_tensors(content, checkpoint), checkpoint, out)
    model, lines = _convert(content, checkpoint, weights)
    save_segmenter(model, out, metadata=told)
    return "\n".join([*lines, f"written to {out}"])


def rename(
    theirs: State, rules: list[Rule], dropped: Mapping[str, str], where: Path
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Our names for foreign weights, and how many names were dropped for which reason.

    Args:
        theirs: The foreign weights by name.
        rules: Of which exactly one must match each name that is not dropped.
        dropped: Patterns of names that are not wanted, with the reason.
        where: What a complaint shall name.

    Raises:
        PipaError: With the list of names that no rule knows.
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
        some = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if unknown[8:] else "")
        raise PipaError(
            f"is no checkpoint of PiPa, HRDA, DAFormer, MIC or MiT; unexpected: {some}", where
        )
    return ours, gone


def _convert(
    content: Mapping[str, Any], path: Path, weights: Weights
) -> tuple[Segmenter, list[str]]:
    beside = _tensors(content, path)
    if _is_encoder(beside):
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
    model.labels = _legend(content.get("meta"), classes)
    return model, [f"{name}, {classes} classes, {len(state) - sum(gone.values())} tensors", *lines]


def _tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    found = content.get("state_dict", content)
    if not isinstance(found, Mapping) or not found:
        raise PipaError("holds no weights", path)
    foreign = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if foreign:
        raise PipaError(f"holds no weights under {', '.join(foreign[:5])}", path)
    return {str(name).removeprefix("segformer."): value for name, value in found.items()}


def _is_encoder(state: State) -> bool:
    return any(re.match(r"(patch_embed1|encoder|stages)\.", name) for name in state)


def _choose(state: State, path: Path, weights: Weights) -> tuple[State, list[str]]:
    """One of the networks that lie side by side in a checkpoint of self-training."""
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
    """Name, number of classes and width of the head, all from the shapes."""
    size = _size({n.removeprefix("backbone.encoder."): t for n, t in ours.items()}, path)
    classify, embed = ours.get("head.classify.weight"), ours.get("head.embed.0.weight")
    if classify is None or embed is None:
        raise PipaError("holds no head of DAFormer; missing: decode_head.conv_seg", path)
    kind = "hrda" if any(name.startswith("attention_head.") for name in ours) else "daformer"
    return f"{kind}_mit_{size}", len(classify), len(embed)


def _size(encoder: State, path: Path) -> str:
    """The MiT that has these widths and depths."""
    embeds = [encoder.get(f"stages.{i}.patch_embeddings.proj.weight") for i in range(4)]
    widths = tuple(0 if weight is None else len(weight) for weight in embeds)
    numbers = [re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name) for name in encoder]
    pairs = {(int(hit[1]), int(hit[2])) for hit in numbers if hit}
    depths = tuple(sum(stage == i for stage, _ in pairs) for i in range(4))
    for size, shape in MIT.items():
        if shape == (widths, depths):
            return size
    raise PipaError(f"holds no MiT-B0 to B5; widths {widths}, depths {depths}", path)


def _legend(meta: Any, classes: int) -> Legend | None:
    """Names and colours, where mmsegmentation wrote them beside the weights."""
    names, palette = (meta or {}).get("CLASSES"), (meta or {}).get("PALETTE")
    if names is None or palette is None or not len(names) == len(palette) == classes:
        return None
    colours = tuple((int(r), int(g), int(b)) for r, g, b in palette)
    return Legend(tuple(str(name) for name in names), colours)


def _convert_encoder(state: State, path: Path, out: Path) -> str:
    """MiT's ImageNet weights as a folder of transformers."""
    ours, gone = rename(state, ENCODER, DROPPED_OF_ENCODER, path)
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
