"""Export: the file predicts like the network, or there is no file."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from tiny import COLOURS, Strongest
from torch import nn

from pipa.deploy.export import NEEDED, export
from pipa.errors import PipaError

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
        (FixedCount, "cannot run the exported network on two images and on one"),
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
def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PipaError, match=r"model\.onnx: cannot be written"):
        export(Strongest(), tmp_path / "file" / "model.onnx", (8, 8))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pipa.deploy.export.NEEDED", ("numpy", "onnx_that_is_not_there"))
    with pytest.raises(PipaError, match=r"needs onnx_that_is_not_there.*'\.\[export\]'"):
        export(Strongest(), tmp_path / "model.onnx", (8, 8))
