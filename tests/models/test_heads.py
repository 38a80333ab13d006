"""Every head on every kind of backbone: shapes, gradients, disk; and heads by their definition."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ConvNextV2Config, Dinov2Config, ResNetConfig, SegformerConfig

import pipa
from pipa.errors import PipaError
from pipa.models.backbones import settings_of
from pipa.models.build import HEADS
from pipa.models.daformer import DAFormerHead, stacked
from pipa.models.deeplab import DeepLabV2Head
from pipa.models.segformer import SegFormerHead

CLASSES = 5
RESNET = settings_of(
    ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[2, 1, 2, 2])
) | {"freeze_norms": False, "frozen": False}
STAGES, LAST = {"out_indices": [1, 2, 3, 4]}, {"out_indices": [2]}
BACKBONES = {  # name, settings
    "mit": (
        "mit_b0",
        settings_of(
            SegformerConfig(hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 2])
        ),
    ),
    "resnet": ("resnet_50", RESNET | {"dilated": True}),
    "plain resnet": ("resnet_101", RESNET | {"dilated": False}),
    "mobilenet": ("mobilenet_v2", None),
    "small": ("small", None),
    "convnext": (
        "auto",
        settings_of(ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)) | STAGES,
    ),
    "dinov2": (
        "auto",
        settings_of(Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2))
        | LAST
        | {"width": 16},
    ),
}
WIDTH = {name: {} if name == "deeplabv2" else {"width": 16} for name in HEADS}
KINDS = [*HEADS, *(f"hrda_{head}" for head in HEADS)]


@pytest.fixture(params=BACKBONES)
def body(request):
    return BACKBONES[request.param]


@pytest.fixture(params=KINDS)
def model(request, body):
    torch.manual_seed(0)
    name, settings = body
    return pipa.create_segmenter(
        f"{request.param}_{name}",
        CLASSES,
        backbone={} if settings is None else {"settings": settings},
        head=WIDTH[request.param.removeprefix("hrda_")],
        **({"detail": 64} if "hrda" in request.param else {}),
    )


def random_image(height, width, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_any_head_on_any_backbone(model, tmp_path):
    prediction = model.analyse(random_image(128, 128, batch=2))
    for output in prediction.outputs:
        rows, columns = (span.stop - span.start for span in output.box)
        assert output.logits.shape == (2, CLASSES, rows // 4, columns // 4)
    sum(o.weight * o.logits.square().mean() for o in prediction.outputs).backward()
    # DeepLabV2 looks at the last map only; what a pyramid makes of the others is not for it.
    idle = ("pyramid.0", "pyramid.1", "pyramid.2", "hidden_states_norms")
    for name, parameter in model.named_parameters():
        if "deeplabv2" in model.config["name"] and any(part in name for part in idle):
            continue
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.any() or name.endswith(("k_proj.bias", "key.bias")), name

    for size in ((97, 131), (33, 70), (5, 9)):
        with torch.no_grad():
            logits = model.eval()(random_image(*size))
        assert logits.shape == (1, CLASSES, *size)
        assert logits.isfinite().all()

    pipa.save_segmenter(model, tmp_path / "model")
    again = pipa.load_segmenter(tmp_path / "model")
    image = random_image(70, 101)
    with torch.no_grad():
        torch.testing.assert_close(again(image), model(image), rtol=0, atol=0)


def test_the_head_of_hrda_is_the_one_that_its_name_tells():
    expected = {
        "hrda_small": "FPNHead",
        "hrda_daformer_small": "DAFormerHead",
        "hrda_segformer_small": "SegFormerHead",
        "hrda_deeplabv2_small": "DeepLabV2Head",
        "hrda_mobilenet_v2": "DAFormerHead",
    }
    for name, kind in expected.items():
        model = pipa.create_segmenter(name, 3)
        assert [type(m).__name__ for m in (model.head, model.attention_head)] == [kind] * 2
    for name in ("hrda_deeplabv2", "hrda_hrda_small", "deeplabv2_hrda_small", "deeplabv2_resnet"):
        with pytest.raises(PipaError, match="no network is called"):
            pipa.create_segmenter(name, 3)


def random_maps(channels, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(2, c, 24 // 2**i, 16 // 2**i, generator=generator, dtype=dtype)
        for i, c in enumerate(channels)
    ]


def test_segformer_is_linear_layers_of_all_levels_and_one_that_joins_them():
    """Per pixel, with matrices, as section 3.2 has it; batch norm from its definition."""
    channels = [3, 4, 5, 6]
    head = SegFormerHead(channels, CLASSES, width=8).double().train()
    head.dropout.p = 0.0
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    maps = random_maps(channels)
    embedded = []
    for layer, map_ in zip(head.embed, maps, strict=True):
        rows = map_.permute(0, 2, 3, 1) @ layer.weight[:, :, 0, 0].T + layer.bias
        embedded.append(F.interpolate(rows.permute(0, 3, 1, 2), (24, 16), mode="bilinear"))
    stack = torch.cat(embedded, dim=1).permute(0, 2, 3, 1)
    convolution, norm, _ = head.fuse
    joined = stack @ convolution.weight[:, :, 0, 0].T
    mean, variance = joined.mean((0, 1, 2)), joined.var((0, 1, 2), unbiased=False)
    joined = (joined - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    logits = joined.clamp(min=0) @ head.classify.weight[:, :, 0, 0].T + head.classify.bias
    torch.testing.assert_close(
        head(maps).logits, logits.permute(0, 3, 1, 2), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("dilations", [None, (1, 2, 3)])
def test_the_pointwise_branch_is_the_one_over_the_stack(dilations):
    """Values and gradients, of the embeddings too, of the convolution as it is written down."""
    head = DAFormerHead([3, 4, 5, 6], CLASSES, width=8, dilations=dilations).double()
    branch = head.fuse if dilations is None else head.fuse.branches[0][0]
    inputs = [map_.requires_grad_() for map_ in random_maps([3, 4, 5, 6])]
    expected = stacked(head.embed, inputs)
    for module in branch:
        expected = module(expected)
    found = branch(head.embed, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = [*inputs, *head.embed.parameters(), *branch.parameters()]
    gradients = [torch.autograd.grad(out.square().sum(), weights) for out in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_deeplab_is_the_sum_of_four_dilated_convolutions():
    """Tap by tap: y[i, j] = sum over a, b in {-1, 0, 1} of w[a, b] x[i + d a, j + d b]."""
    head = DeepLabV2Head([3, 4, 5, 6], CLASSES).double()
    with torch.no_grad():
        for branch in head.branches:
            branch.bias.normal_()
    map_ = random_maps([3, 4, 5, 6])[-1]
    map_ = F.interpolate(map_, (20, 30))
    total = torch.zeros(2, CLASSES, 20, 30, dtype=torch.float64)
    for branch, d in zip(head.branches, (6, 12, 18, 24), strict=True):
        padded = F.pad(map_, (d, d, d, d))
        total += branch.bias[:, None, None]
        for a in range(3):
            for b in range(3):
                shifted = padded[..., a * d : a * d + 20, b * d : b * d + 30]
                total += torch.einsum("kc,nchw->nkhw", branch.weight[:, :, a, b], shifted)
    first = torch.zeros(2, 1, 20, 30, dtype=torch.float64)
    torch.testing.assert_close(head([first, map_]).logits, total, rtol=1e-10, atol=1e-10)
    finer = torch.zeros(2, 1, 40, 60, dtype=torch.float64)
    expected = F.interpolate(total, (40, 60), mode="bilinear")
    torch.testing.assert_close(head([finer, map_]).logits, expected, rtol=1e-10, atol=1e-10)


def test_deeplab_starts_from_small_weights():
    torch.manual_seed(0)
    head = DeepLabV2Head([1, 1, 1, 256], 19)
    for branch in head.branches:
        assert isinstance(branch, nn.Conv2d)
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert not branch.bias.any()
