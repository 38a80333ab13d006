"""Backbones: maps at strides 4 to 32 out of anything, and back from their settings."""

import json

import pytest
import torch
from transformers import (
    AutoBackbone,
    ConvNextV2Config,
    Dinov2Config,
    DINOv3ViTConfig,
    ResNetConfig,
    Swinv2Config,
)

import pipa
from pipa.errors import PipaError
from pipa.models.auto import auto
from pipa.models.backbones import MIT, mit

CONFIGS = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4),
    "convnextv2": ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4),
    "swinv2": Swinv2Config(embed_dim=12, depths=[1] * 4, num_heads=[1, 2, 3, 4], window_size=4),
    "dinov2": Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2),
    "dinov3": DINOv3ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
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


def test_a_frozen_encoder_learns_nothing(folder):
    backbone = auto(pretrained=folder, frozen=True)
    assert not any(p.requires_grad for p in backbone.encoder.parameters())
    again = auto(settings=backbone.settings)
    assert not any(p.requires_grad for p in again.encoder.parameters())


def test_auto_needs_to_know_what(tmp_path):
    with pytest.raises(PipaError, match="no pretrained weights are named"):
        pipa.create_segmenter("daformer_auto", 3)
    with pytest.raises(PipaError, match="is no backbone"):
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
