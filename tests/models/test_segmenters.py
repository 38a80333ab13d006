"""The promises of every segmenter."""

import copy
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pipa
from pipa.batch import Box
from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.models.segmenter import Segmenter

NAMES = {
    "small": {},
    "hrda_small": {"detail": 64},
    "daformer_mit_b0": {"head": {"width": 32}, "window": 96, "stride": 64},
    "hrda_mit_b0": {"head": {"width": 32}, "detail": 64},
    "fpn_mobilenet_v2": {},
    "daformer_small": {"head": {"width": 32}},
}
CLASSES = 5


def create(name: str) -> Segmenter:
    torch.manual_seed(0)
    return pipa.create_segmenter(name, CLASSES, **NAMES[name])


@pytest.fixture(params=NAMES)
def model(request) -> Segmenter:
    return create(request.param)


def random_image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_outputs_and_views_say_where_they_lie(model):
    image = random_image(128, 192, batch=2)
    prediction = model.analyse(image)
    assert sum(output.weight for output in prediction.outputs) == pytest.approx(1)
    assert prediction.outputs[0].box == Box(slice(0, 128), slice(0, 192))
    for output in prediction.outputs:
        rows, columns = (span.stop - span.start for span in output.box)
        assert output.logits.shape == (2, CLASSES, rows // 4, columns // 4)
    assert prediction.context.box == prediction.outputs[0].box
    assert prediction.detail.box == prediction.outputs[-1].box
    for view in (prediction.context, prediction.detail):
        assert [f.shape[1] for f in view.features] == model.backbone.channels
        sides = [tuple(f.shape[-2:]) for f in view.features]
        assert all(a == (2 * b[0], 2 * b[1]) for a, b in pairwise(sides))


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (33, 70), (5, 9)])
def test_logits_have_the_size_of_the_image(model, size):
    with torch.no_grad():
        logits = model.eval()(random_image(*size))
    assert logits.shape == (1, CLASSES, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (40, 300), (130, 97)])
def test_predict_takes_any_size_and_leaves_the_mode_alone(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image.setflags(write=False)
    modes = [module.training for module in model.train().modules()]
    ids = model.predict(image)
    assert ids.shape == size
    assert ids.dtype == np.uint8
    assert ids.max() < CLASSES
    assert [module.training for module in model.modules()] == modes
    assert np.array_equal(ids, model.eval().predict(image))


def test_predict_is_the_network_where_one_window_is_enough(model):
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = model.eval()(pixels).argmax(1)[0].numpy()
    assert np.array_equal(model.predict(image), expected)


def test_the_chunks_do_not_change_the_answer(model):
    model.eval()
    model.window, model.stride = 64, 48
    image = np.random.default_rng(0).integers(0, 256, (130, 150, 3), dtype=np.uint8)
    if "hrda" in model.config["name"]:
        model.detail, model.detail_chunk = 32, 1
    one = model.predict(image)
    model.chunk = 4
    if "hrda" in model.config["name"]:
        model.detail_chunk = 9
    # a sum in another order may tip a tie
    assert np.mean(one == model.predict(image)) > 0.999


def test_the_loss_reaches_every_parameter(model):
    prediction = model.train().analyse(random_image(128, 128, batch=2))
    sum(o.weight * o.logits.square().mean() for o in prediction.outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith("k_proj.bias"), name  # softmax ignores it


def test_features_alone_reach_every_parameter_of_the_backbone(model):
    for view in ("context", "detail"):
        model.zero_grad()
        features = getattr(model.train().analyse(random_image(128, 128, batch=2)), view).features
        sum(f.square().mean() for f in features).backward()
        for name, parameter in model.backbone.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any() or name.endswith("k_proj.bias"), name


def test_same_seed_same_weights_and_same_crops(model):
    name = model.config["name"]
    again = create(name)
    for (key, one), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), key
    boxes = []
    for network in (model, copy.deepcopy(model)):
        network.generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            boxes.append([network.analyse(random_image(128, 128)).detail.box for _ in range(4)])
    assert boxes[0] == boxes[1]


def test_a_saved_network_comes_back_whole(model, tmp_path):
    labels = LabelSpace(tuple("abcde"), tuple((i, i, i) for i in range(CLASSES)))
    pipa.save_segmenter(model, tmp_path / "model", labels, metadata={"steps": 3})
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["metadata"] == {"steps": 3}
    before = torch.get_rng_state()
    again = pipa.load_segmenter(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.labels == labels
    assert not again.training
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    for part in ("mean", "std", "window", "stride", "chunk"):
        assert torch.equal(*(torch.as_tensor(getattr(m, part)) for m in (model, again)))
    rebuilt = pipa.create_segmenter(**again.config)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_the_first_layers_learn_slowly_and_heads_fast(model):
    """The optimiser gives ten times the rate to parameters with "head" in their names."""
    heads = {n.split(".")[0] for n, _ in model.named_parameters() if "head" in n}
    others = {n.split(".")[0] for n, _ in model.named_parameters() if "head" not in n}
    assert others == {"backbone"}
    assert heads <= {"head", "attention_head"}


def test_hrda_draws_its_detail_anywhere_on_the_grid():
    model = create("hrda_small")
    boxes = [model._draw_box(80, 72) for _ in range(300)]
    assert {(b.rows.start, b.columns.start) for b in boxes} == {
        (y, x) for y in (0, 8, 16) for x in (0, 8)
    }
    assert all(span.stop - span.start == 64 for box in boxes for span in box)
    assert model._draw_box(40, 64) == Box(slice(0, 40), slice(0, 64))


def test_hrda_trusts_the_context_outside_the_detail():
    model = create("hrda_small").eval()
    nn.init.zeros_(model.attention_head.classify.weight)
    nn.init.constant_(model.attention_head.classify.bias, 50.0)  # all trust to the detail
    with torch.no_grad():
        prediction = model.analyse(random_image(128, 128))
        fused, fine = prediction.outputs
        coarse = model.head(prediction.context.features).logits
    rows, columns = (slice(s.start // 4 + 1, s.stop // 4 - 1) for s in fine.box)
    inner = fused.logits[..., rows, columns]
    torch.testing.assert_close(inner, fine.logits[..., 1:-1, 1:-1])
    outside = torch.ones(128, 128, dtype=torch.bool)
    grown = [slice(max(0, s.start - 8), s.stop + 8) for s in fine.box]
    outside[grown[0], grown[1]] = False
    up = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    where = outside[::4, ::4]
    torch.testing.assert_close(fused.logits[..., where], up[..., where])


def test_hrda_refuses_crops_off_its_grid():
    with pytest.raises(PipaError, match="multiples of 8, got 100x128"):
        create("hrda_small").analyse(random_image(100, 128))
    with pytest.raises(PipaError, match="not a multiple of 16"):
        pipa.create_segmenter("hrda_small", 3, detail=100)


def test_hrda_looks_at_details_side_by_side_where_it_is_told_to():
    """Windows that do not overlap: each place has the logits of the one crop that it lies in."""
    model = create("hrda_small").eval()
    nn.init.zeros_(model.attention_head.classify.weight)
    nn.init.constant_(model.attention_head.classify.bias, 50.0)  # all trust to the detail
    image = random_image(128, 192)
    paper = model(image)
    model.detail_stride = 64
    with torch.no_grad():
        found = model(image)
        normal = model.normalise(image)
        rows = [
            torch.cat([model.head(model.backbone(p)).logits for p in row.split(64, dim=3)], dim=3)
            for row in normal.split(64, dim=2)
        ]
        expected = nn.functional.interpolate(torch.cat(rows, dim=2), (128, 192), mode="bilinear")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, paper, atol=1e-3)


@pytest.mark.parametrize("stride", [0, -8, 12, 72])
def test_hrda_refuses_detail_windows_with_gaps(stride):
    with pytest.raises(PipaError, match=f"windows of HRDA are {stride} pixels apart"):
        pipa.create_segmenter("hrda_small", 3, detail=64, detail_stride=stride)
    model = pipa.create_segmenter("hrda_small", 3, detail=64, detail_stride=16)
    assert pipa.create_segmenter(**model.config).detail_stride == 16
