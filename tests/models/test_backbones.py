"""Backbones: maps at strides 4 to 32 out of anything, and back from their settings."""

import json

import pytest
import torch
from transformers import (
    AutoBackbone,
    ConvNextV2Config,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    ResNetConfig,
    Swinv2Config,
)

import pipa
from pipa.errors import PipaError
from pipa.models.auto import auto
from pipa.models.backbones import MIT, mit
from pipa.uda.optim import Optim, parameter_groups

CONFIGS = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4),
    "convnextv2": ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4),
    "swinv2": Swinv2Config(embed_dim=12, depths=[1] * 4, num_heads=[1, 2, 3, 4], window_size=4),
    "dinov3_convnext": DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    "dinov2": Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2),
    "registers": Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "dinov3": DINOv3ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_register_tokens=2,
    ),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    AutoBackbone.from_config(CONFIGS[request.param]).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def test_any_backbone_of_transformers_gives_four_maps(folder, tmp_path):
    torch.manual_seed(0)
    model = pipa.create_segmenter("fpn_auto", 3, pretrained=folder)
    for size in ((96, 128), (72, 40)):
        features = model.train().backbone(torch.rand(2, 3, *size))
        for level, (map_, channels) in enumerate(
            zip(features, model.backbone.channels, strict=True)
        ):
            expected = [-(-side // 2 ** (level + 2)) for side in size]
            floored = [max(1, side // 2 ** (level + 2)) for side in size]  # ConvNeXt drops a rest
            assert list(map_.shape[-2:]) in (expected, floored)
            assert map_.shape[:2] == (2, channels)
    sum(f.square().mean() for f in features).backward()
    trained = [(n, p) for n, p in model.backbone.named_parameters() if p.requires_grad]
    assert trained
    assert all(parameter.grad is not None for _, parameter in trained)
    pipa.save_segmenter(model, tmp_path / "model")
    for file in folder.iterdir():
        file.unlink()
    again = pipa.load_segmenter(tmp_path / "model")
    image = torch.rand(1, 3, 70, 101)
    torch.testing.assert_close(again(image), model.eval()(image))
    json.dumps(model.config)


def test_a_training_step_moves_all_that_learns(folder):
    torch.manual_seed(0)
    model = pipa.create_segmenter("segformer_auto", 3, pretrained=folder, head={"width": 16})
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model, Optim(lr=1e-3, layer_decay=0.9)))
    sum(
        o.logits.square().mean() for o in model.analyse(torch.rand(2, 3, 75, 110)).outputs
    ).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    optimizer.step()
    same = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    # a softmax does not see the bias of its keys; all else is decayed or has a gradient
    assert all(n.endswith(("mask_token", "k_proj.bias", "key.bias")) for n in same), same


LAYERS = {  # blocks, and the layers of some parameters
    "resnet": (4, {"embedder.": 0, "stages.0.": 1, "stages.3.": 4}),
    "convnextv2": (
        4,
        {".embeddings.": 0, "stages.1.layers.0.": 2, "hidden_states_norms.stage1": 4},
    ),
    "swinv2": (4, {".embeddings.": 0, "layers.1.blocks.0.": 2, "layers.1.downsample": 2}),
    "dinov3_convnext": (
        5,
        {"stages.0.downsample_layers.": 0, "stages.2.layers.0.": 3, "stages.3.layers.0.": 5},
    ),
    "dinov2": (
        2,
        {".embeddings.": 0, "layer.0.": 1, "layer.1.": 2, ".layernorm.": 2, "pyramid": 2},
    ),
    "registers": (2, {"register_tokens": 0, "layer.0.": 1, "layer.1.": 2, "pyramid.": 2}),
    "dinov3": (2, {".embeddings.": 0, "layer.0.": 1, "layer.1.": 2, ".norm.": 2, "pyramid.": 2}),
}


def test_every_parameter_lies_in_a_layer(folder):
    backbone = auto(pretrained=folder)
    count, known = LAYERS[folder.name]
    assert len(backbone.blocks()) == count
    depths = {n: backbone.depths()[p] for n, p in backbone.named_parameters()}
    assert max(depths.values()) == count
    for part, layer in known.items():
        assert {depths[n] for n in depths if part in n} == {layer}, part


FROZEN = {
    "daformer_mit_b0": {},
    "fpn_mobilenet_v2": {},
    "deeplabv2_resnet_50": {},
    "hrda_mit_b0": {"detail": 64},
}


def assert_only_the_rest_learns(model):
    encoder = model.backbone.encoder
    state = {n: t.clone() for n, t in encoder.state_dict().items()}
    image = torch.rand(2, 3, 128, 128)
    outputs = model.train().analyse(image).outputs
    sum(o.weight * o.logits.square().mean() for o in outputs).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("backbone.encoder."), name
    assert all(torch.equal(t, state[n]) for n, t in encoder.state_dict().items())
    groups = parameter_groups(model, Optim())
    members = {p for group in groups for p in group["params"]}
    assert members.isdisjoint(encoder.parameters())
    once, twice = model.backbone(image), model.backbone(image)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_encoder_learns_nothing(name, tmp_path):
    torch.manual_seed(0)
    head = {} if "deeplab" in name else {"head": {"width": 16}}
    model = pipa.create_segmenter(name, 3, backbone={"frozen": True}, **head, **FROZEN[name])
    assert_only_the_rest_learns(model)
    pipa.save_segmenter(model, tmp_path / "model")
    assert_only_the_rest_learns(pipa.load_segmenter(tmp_path / "model"))


def test_a_frozen_encoder_of_transformers_learns_nothing(folder):
    backbone = auto(pretrained=folder, frozen=True)
    again = pipa.create_segmenter("daformer_auto", 3, backbone={"settings": backbone.settings})
    given = {"frozen": True}
    for model in (
        pipa.create_segmenter("daformer_auto", 3, pretrained=folder, backbone=given),
        again,
    ):
        assert_only_the_rest_learns(model)


def test_what_was_saved_before_there_was_freezing_is_not_frozen():
    for name in ("fpn_mit_b0", "fpn_mobilenet_v2"):
        settings = pipa.create_segmenter(name, 3).config["backbone"]["settings"]
        given = {k: v for k, v in settings.items() if k != "frozen"}
        model = pipa.create_segmenter(name, 3, backbone={"settings": given})
        assert all(p.requires_grad for p in model.parameters())


def test_auto_needs_to_know_what(tmp_path):
    with pytest.raises(PipaError, match="no pretrained weights are named"):
        pipa.create_segmenter("daformer_auto", 3)
    with pytest.raises(PipaError, match="is not a backbone"):
        pipa.create_segmenter("daformer_auto", 3, pretrained=tmp_path)


@pytest.mark.parametrize("size", MIT)
def test_mit_has_the_parameters_of_the_paper(size):
    millions = {"b0": 3.3, "b1": 13.2, "b2": 24.2, "b3": 44.1, "b4": 60.9, "b5": 81.5}
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in mit(size).parameters())
    assert count / 1e6 == pytest.approx(millions[size], abs=0.1)


def test_the_norms_of_mit_have_two_epsilons():
    """As in DAFormer@mix_transformer.py; `docs/fidelity.md` says how much of it can be seen."""
    norms = {n: m.eps for n, m in mit("b0").named_modules() if isinstance(m, torch.nn.LayerNorm)}
    default = {n for n in norms if "patch_embeddings" in n or "sequence_reduction" in n}
    assert len(default) == 4 + 6
    assert {norms[n] for n in default} == {1e-5}
    assert {eps for n, eps in norms.items() if n not in default} == {1e-6}


def test_stochastic_depth_grows_to_a_tenth():
    rates = [getattr(m, "drop_prob", None) for m in mit("b1").modules()]
    rates = [rate for rate in rates if rate is not None]
    assert rates == pytest.approx([0.1 * i / 7 for i in range(1, 8)])
