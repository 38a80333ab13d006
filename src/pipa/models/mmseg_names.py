"""Tables of the names of mmsegmentation, transformers and pipa, for `mmseg`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


def _same(tensor: Tensor) -> list[Tensor]:
    return [tensor]


def _halves(tensor: Tensor) -> list[Tensor]:
    """Split keys and values, which the authors compute by one matrix."""
    return list(tensor.chunk(2))


def _kernel(tensor: Tensor) -> list[Tensor]:
    """Turn a linear layer over the channels into a 1x1 convolution."""
    return [tensor[:, :, None, None]]


@dataclass(frozen=True)
class Rule:
    """A rule: foreign names that match all of `pattern` become each of `ours`, with its groups."""

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
    """Return the rules of one stage of MiT: the authors count from 1, transformers from 0."""
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
    Rule(r"stages\..+", (r"\g<0>",)),  # the present names of transformers
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
