"""Export: the file predicts like the network, or there is no file."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from tiny import COLOURS, Strongest
from torch import nn

import pipa
from pipa.deploy.export import NEEDED, export
from pipa.deploy.int8 import quantise
from pipa.errors import PipaError
from pipa.evaluation.judge import judge
from pipa.models.onnx_file import OnnxSegmenter

with_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="the extra `export` is not installed",
)


class Learned(Strongest):
    """A network with the parts of a real one: convolution, norm, dropout, resizing."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.Dropout2d(0.5)
        )
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image):
        logits = self.head(self.body(self.normalise(image)))
        return nn.functional.interpolate(logits, image.shape[-2:], mode="bilinear")


class Random(Strongest):
    def forward(self, image):
        return super().forward(image) + torch.rand_like(image)


class Branching(Strongest):
    def forward(self, image):
        return image if float(image.mean()) > 0.5 else -image


@with_extra
def test_the_file_answers_as_the_network(tmp_path):
    import onnxruntime

    torch.manual_seed(0)
    model = Learned().train()
    path = tmp_path / "new" / "model.onnx"
    difference = export(model, path, (12, 20))
    assert 0 <= difference < 1e-5
    assert model.training
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).random((5, 3, 12, 20), np.float32)
    (logits,) = session.run(None, {"image": image})
    with torch.inference_mode():
        expected = model.eval()(torch.tensor(image))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["names"]) == ["red", "green", "blue"]
    assert json.loads(about["colours"]) == [list(colour) for colour in COLOURS]


class FixedCount(Strongest):
    """A network whose code depends on the number of images, so that the exporter fixes it."""

    def forward(self, image):
        return torch.cat([part * 2 for part in super().forward(image).chunk(2)])


@with_extra
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Random, "logits differ by .* from the original's"),
        (Branching, "Branching cannot be exported to ONNX"),
        (FixedCount, "cannot be run on two images and on one"),
    ],
)
def test_a_file_that_answers_otherwise_is_not_kept(tmp_path, network, message):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    with pytest.raises(PipaError, match=message):
        export(network(), path, (8, 8))
    assert path.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


@with_extra
@pytest.mark.parametrize(
    ("name", "format", "size"),
    [
        ("hrda_small", "onnx", (64, 72)),
        ("hrda_small", "torch", (33, 72)),
    ],
)
def test_an_export_of_hrda_answers_alike(tmp_path, name, format, size):
    """HRDA with its detail windows, for any number of images; `slow` has all networks."""
    torch.manual_seed(0)
    model = pipa.create_segmenter(name, 5, head={"width": 16}, detail=64)
    compare(model, tmp_path / "file", format, [size])


HEADS = ("fpn", "segformer", "deeplabv2", "daformer", "hrda")
BACKBONES = ("small", "mobilenet_v2", "mit_b0", "resnet_50")


@with_extra
@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_every_network_answers_alike_at_three_sizes(tmp_path, head, backbone):
    options = {"detail": 64} if head == "hrda" else {}
    model = pipa.create_segmenter(f"{head}_{backbone}", 5, **options)
    compare(model, tmp_path / "file", "onnx", [(64, 64), (96, 128), (72, 104)])


def compare(model, path, format, sizes):
    for size in sizes:
        difference = export(model, path, size, format=format)
        image = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = model.eval()(image)
            if format == "onnx":
                found = OnnxSegmenter(path)(image)
            else:
                found = torch.export.load(path).module()(image)
        # DeepLabV2 on a random ResNet has logits of 130, and float32 seven digits
        limit = 1e-4 * max(1.0, float(expected.abs().max()))
        assert difference < limit
        assert (found - expected).abs().max() < limit


@with_extra
def test_an_onnx_file_predicts_like_the_network(tmp_path):
    """Windows, border and names are those of the network."""
    torch.manual_seed(0)
    model = Learned()
    model.resize = 20, 30
    export(model, tmp_path / "x.onnx", (16, 16))
    file = OnnxSegmenter(tmp_path / "x.onnx")
    assert (file.labels, file.resize) == (model.labels, model.resize)
    model.window, model.stride = file.window, file.stride
    for shape in ((16, 16), (40, 31)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        assert (file.predict(image) == model.predict(image)).mean() > 0.99
    assert file.predict(image[:5, :7]).shape == (5, 7)
    judged = judge(
        {"network": model, "file": pipa.load_segmenter(tmp_path / "x.onnx")}, [image], [1] * 3
    )
    assert judged.figures("file").score == pytest.approx(judged.figures("network").score, abs=0.01)
    with pytest.raises(PipaError, match=r"an ONNX file cannot be exported again\. Give the run"):
        export(pipa.load_segmenter(tmp_path / "x.onnx"), tmp_path / "y.onnx", (16, 16))
    with pytest.raises(PipaError, match=r"x\.onnx: is an ONNX file, which holds a single network"):
        pipa.load_segmenter(tmp_path / "x.onnx", weights="teacher")
    (tmp_path / "x.onnx").write_bytes(b"broken")
    with pytest.raises(PipaError, match=r"x\.onnx: is no network that `pipa export` wrote"):
        OnnxSegmenter(tmp_path / "x.onnx")


@with_extra
def test_a_file_of_two_sides_has_windows_of_two_sides(tmp_path):
    """Windows of another form would be filled up with a border that the network sees."""
    torch.manual_seed(0)
    model = pipa.create_segmenter("small", 3)
    export(model, tmp_path / "x.onnx", (64, 128))
    file = OnnxSegmenter(tmp_path / "x.onnx")
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    assert (file.predict(image) == model.predict(image)).mean() > 0.99
    seen = []
    file.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
    file.predict(np.zeros((100, 200, 3), np.uint8))
    assert seen == [(64, 128)] * 4


@with_extra
def test_eight_bits_are_a_quarter_of_the_size_and_near_the_network(tmp_path):
    torch.manual_seed(0)
    model = Learned()
    model.body[0] = nn.Conv2d(3, 64, 7, stride=2, padding=3)
    model.body[1] = nn.GroupNorm(2, 64)
    model.head = nn.Conv2d(64, 3, 5, padding=2)
    path = tmp_path / "x.onnx"
    export(model, path, (24, 24))
    rng = np.random.default_rng(0)
    images = [torch.tensor(rng.random((3, 30, 20), np.float32)) for _ in range(8)]
    before, exact = path.stat().st_size, OnnxSegmenter(path)
    quantise(path, path, images)
    assert path.stat().st_size < 0.5 * before
    coarse = OnnxSegmenter(path)
    assert coarse.labels == model.labels
    image = torch.tensor(rng.random((4, 3, 24, 24), np.float32))
    error = (coarse(image) - exact(image)).abs().mean() / exact(image).std()
    assert 0 < error < 0.05
    with pytest.raises(PipaError, match="no image to calibrate on"):
        quantise(path, path, [])


@with_extra
def test_eight_bits_are_calibrated_on_what_the_network_sees(tmp_path):
    """A model that works on smaller images than the camera's is calibrated on the smaller ones."""
    torch.manual_seed(0)
    model = Learned()
    model.resize = (24, 24)
    export(model, tmp_path / "x.onnx", (24, 24))
    checks = torch.tensor(np.indices((96, 96)).sum(0) % 2, dtype=torch.float32).expand(3, -1, -1)
    quantise(tmp_path / "x.onnx", tmp_path / "large.onnx", [checks])
    quantise(tmp_path / "x.onnx", tmp_path / "small.onnx", [model.resized(checks[None])[0]])
    image = torch.rand(4, 3, 24, 24)
    large, small = (OnnxSegmenter(tmp_path / f"{name}.onnx")(image) for name in ("large", "small"))
    assert torch.equal(large, small)


@with_extra
def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PipaError, match=r"model\.onnx: cannot be written"):
        export(Strongest(), tmp_path / "file" / "model.onnx", (8, 8))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pipa.deploy.export.NEEDED", ("numpy", "onnx_that_is_not_there"))
    with pytest.raises(PipaError, match=r"needs onnx_that_is_not_there.*\"pipa-uda\[export\]\""):
        export(Strongest(), tmp_path / "model.onnx", (8, 8))
