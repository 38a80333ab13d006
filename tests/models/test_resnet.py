"""ResNet: its size, its dilation, its norms."""

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel

import pipa
from pipa.batch import Labelled
from pipa.errors import PipaError
from pipa.models.backbones import settings_of
from pipa.models.resnet import resnet
from pipa.uda.terms import FeatureDistance, PixelTerm

TINY = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 3, 2]}


def tiny(*, dilated=True, freeze_norms=False, **options):
    flags = {"dilated": dilated, "freeze_norms": freeze_norms, "frozen": False}
    return settings_of(ResNetConfig(**TINY, **options)) | flags


@pytest.mark.parametrize(("size", "millions"), [("50", 23.5), ("101", 42.5)])
def test_resnet_has_the_parameters_of_the_paper(size, millions):
    """25.6 and 44.5 million, less the 2.0 of the classifier."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in resnet(size).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    "options", [{}, {"downsample_in_bottleneck": True}, {"layer_type": "basic"}]
)
@pytest.mark.parametrize("size", [(128, 96), (97, 131)])
def test_dilation_changes_the_grid_and_nothing_else(options, size):
    """Every 2nd cell of stage 3, every 4th of stage 4, equals a cell without dilation."""
    torch.manual_seed(0)
    coarse = resnet(settings=tiny(dilated=False, **options)).double().eval()
    fine = resnet(settings=tiny(**options)).double().eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    expected, found = coarse(image), fine(image)
    assert [tuple(f.shape[-2:]) for f in found[1:]] == [tuple(expected[1].shape[-2:])] * 3
    for before, after, step in zip(expected, found, (1, 1, 2, 4), strict=True):
        torch.testing.assert_close(after[..., ::step, ::step], before, rtol=1e-10, atol=1e-10)


def test_dilation_is_a_choice_and_is_remembered(tmp_path):
    with torch.device("meta"):
        strides = {c: [b[0] for b in strides_of(resnet("101", dilated=c))] for c in (True, False)}
    assert strides == {True: [4, 8, 8, 8], False: [4, 8, 16, 32]}
    model = pipa.create_segmenter("fpn_resnet_50", 3, backbone={"settings": tiny(dilated=False)})
    pipa.save_segmenter(model, tmp_path / "model")
    again = pipa.load_segmenter(tmp_path / "model")
    assert [b[0] for b in strides_of(again.backbone)] == [4, 8, 16, 32]


def strides_of(backbone):
    features = backbone(torch.rand(2, 3, 64, 128))
    return [(64 // f.shape[-2], 128 // f.shape[-1]) for f in features]


def test_weights_of_a_folder(tmp_path):
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32])
    theirs = ResNetModel(config)
    theirs.save_pretrained(tmp_path / "weights")
    ours = pipa.create_segmenter("deeplabv2_resnet_50", 3, pretrained=tmp_path / "weights")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.backbone.encoder.state_dict()[name], tensor), name
    with pytest.raises(PipaError, match="is not ResNet-101: 3-4-6-3 bottleneck blocks"):
        pipa.create_segmenter("deeplabv2_resnet_101", 3, pretrained=tmp_path / "weights")


@pytest.mark.parametrize("freeze", [False, True])
def test_norms_keep_their_statistics_if_told(freeze):
    body = resnet(settings=tiny(freeze_norms=freeze)).train()
    norm = body.encoder.embedder.embedder.normalization
    assert isinstance(norm, nn.BatchNorm2d)
    before = norm.running_mean.clone()
    sum(f.mean() for f in body(torch.rand(2, 3, 64, 64))).backward()
    assert torch.equal(norm.running_mean, before) == freeze
    assert norm.weight.grad is not None


@pytest.mark.parametrize("name", ["daformer_resnet_50", "deeplabv2_resnet_101", "hrda_resnet_101"])
def test_what_adapts_works_at_output_stride_8(name):
    torch.manual_seed(0)
    options = {"detail": 64} if "hrda" in name else {}
    head = {} if "deeplab" in name else {"head": {"width": 16}}
    model = pipa.create_segmenter(name, 3, backbone={"settings": tiny()}, **head, **options)
    image = torch.rand(2, 3, 128, 128)
    label = torch.zeros(2, 128, 128, dtype=torch.long)
    label[..., 64:] = 1
    source = Labelled(image, label)
    distance, pixel = FeatureDistance(), PixelTerm(width=16, dim=8)
    for term in (distance, pixel):
        term.prepare(model)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prediction = model.analyse(image)
    for term in (distance, pixel):
        loss = term(prediction, source)
        assert loss > 0
        gradients = torch.autograd.grad(
            loss, list(model.backbone.parameters()), retain_graph=True, allow_unused=True
        )
        assert any(g is not None and g.any() for g in gradients)
