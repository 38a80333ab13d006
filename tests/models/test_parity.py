"""Our networks against the authors' code: same weights, same inputs, same outputs.

`recipe` rebuilds weights and inputs; `golden/trim_models.py` says how the numbers were cut.
"""

import gzip
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import GOLDEN, golden, image, labels, state
from torch import Tensor
from torch.nn import functional as F

from pipa.batch import Box
from pipa.models.backbones import mit
from pipa.models.hrda import HRDA
from pipa.models.mmseg import load, rename
from pipa.models.mmseg_names import ENCODER, SEGMENTER
from pipa.models.segmenter import Prediction, Segmenter
from pipa.models.windows import slide

RELATIVE = 1e-4


@cache
def keys(name: str) -> dict[str, tuple[int, ...]]:
    content = json.loads(gzip.decompress((GOLDEN / "checkpoint_keys.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in content[name]}


def network(name: str) -> Segmenter:
    """A network with the recipe's weights, to evaluate; inputs are normalised already."""
    model = load({"state_dict": state(keys(f"{name}_segmentor"))}, Path(name))[0].eval()
    model.mean.zero_()
    model.std.fill_(1)
    return model


def assert_golden(name: str, found: dict[str, Tensor]) -> None:
    """Compare at the tolerance of the reference: relative to the spread of its values."""
    arrays, meta = golden(name)
    for key, tensor in found.items():
        where = meta["arrays"][key]
        rows = columns = slice(None)
        if where["stride"] != "[...]":
            start, step = where["stride"].removesuffix("]").split(", ")[-1].split("::")
            rows = columns = slice(int(start), None, int(step))
        ours = tensor.detach().numpy()
        ours = ours[..., rows, columns] if ours.ndim > 2 else ours
        ours, theirs = ours.ravel()[:: where["step"]], arrays[key]
        assert ours.shape == theirs.shape, key
        assert np.abs(ours - theirs).max() <= RELATIVE * theirs.std(), key


@pytest.mark.parametrize("size", ["b0", "b5"])
def test_mit_gives_the_authors_features(size):
    model = mit(size).eval()
    weights, _ = rename(state(keys(f"mit_{size}_backbone")), ENCODER, {}, Path(size))
    model.encoder.load_state_dict(weights)
    inputs = {f"mit_{size}": image("open/mit/img", (2, 3, 128, 192))}
    if size == "b0":
        inputs["mit_b0_odd"] = image("open/mit/odd", (1, 3, 97, 130))
        # so little variance that the epsilon of the embeddings' norms shows: 1e-6 is off by 1 %
        inputs["mit_b0_lowvar"] = np.float32(0.02) * inputs["mit_b0"][:1, :, :64, :64]
    for name, array in inputs.items():
        with torch.no_grad():
            maps = model(torch.from_numpy(array))
        assert_golden("mit", {f"{name}/feat{i}": map_ for i, map_ in enumerate(maps)})


@pytest.mark.parametrize("size", ["b0", "b5"])
def test_daformer_gives_the_authors_logits(size):
    model = network(f"daformer_mit_{size}")
    x = torch.from_numpy(image("open/daformer/img", (1, 3, 256, 256)))
    with torch.no_grad():
        (output,) = model.analyse(x).outputs
        found = {"logits_stride4": output.logits, "encode_decode": model(x)}
    assert_golden("daformer", {f"mit_{size}/{key}": tensor for key, tensor in found.items()})


@pytest.mark.parametrize(("variant", "side"), [("daformer", 128), ("hrda", 256)])
def test_a_network_of_pipa_gives_its_logits_without_the_training_heads(variant, side):
    model = network(f"pipa_{variant}_mit_b1")
    model.detail = 128
    x = torch.from_numpy(image("open/pipa/img", (2, 3, side, side)))[:1]
    with torch.no_grad():
        assert_golden(f"pipa_model_{variant}", {"eval/encode_decode": model(x)})


def hrda(detail: int) -> HRDA:
    model = network("hrda_mit_b0")
    assert isinstance(model, HRDA)
    model.detail, model.window, model.stride = detail, 2 * detail, detail
    return model


def test_hrda_fuses_the_whole_image_as_the_authors_do():
    model = hrda(256)
    x = torch.from_numpy(image("open/hrda/full", (1, 3, 512, 512)))
    with torch.no_grad():
        half = F.interpolate(x, scale_factor=0.5, mode="bilinear")
        attention = model.attention_head(model.backbone(half)).logits
        found = {"full/encode_decode": model(x), "full/att": attention.sigmoid()}
    assert_golden("hrda", found)


def test_hrda_slides_over_the_image_as_the_authors_do():
    model = hrda(128)
    model.chunk, model.detail_chunk = 2, 4
    x = torch.from_numpy(image("open/hrda/slide", (1, 3, 256, 512)))
    with torch.no_grad():
        logits = slide(model, x)
    rescaled = F.interpolate(logits, (384, 768), mode="bilinear")
    found = {"slide/logits": logits, "slide/prob": logits.softmax(1)}
    assert_golden("hrda", found | {"slide/rescaled_1.5x": rescaled})


def place_detail(model: HRDA, box: Box) -> None:
    """Give the network a generator whose next detail crop of a 256x256 image is `box`."""
    for seed in range(10_000):
        model.generator = torch.Generator().manual_seed(seed)
        if model._draw_box(256, 256) == box:
            model.generator.manual_seed(seed)
            return
    raise AssertionError("no seed draws this box")


def without_dropout(model: Segmenter) -> None:
    for module in model.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0


def losses_of(prediction: Prediction, label: Tensor, weight: Tensor) -> list[Tensor]:
    """The authors' cross entropy of each output: the mean over all pixels, ignored ones too."""
    losses = []
    for output in prediction.outputs:
        truth = label[:, *output.box]
        logits = F.interpolate(output.logits, truth.shape[-2:], mode="bilinear")
        each = F.cross_entropy(logits, truth, ignore_index=255, reduction="none")
        losses.append(output.weight * (each * weight[:, *output.box]).mean())
    return losses


@pytest.fixture(scope="module")
def training() -> tuple[HRDA, Prediction, Tensor]:
    """HRDA, its prediction in training mode, and the label.

    In float64: a single gradient of the first layer is uncertain by 2e-3 in float32.
    """
    model = hrda(128).double().train()
    without_dropout(model)
    place_detail(model, Box(slice(40, 168), slice(96, 224)))
    x = torch.from_numpy(image("open/hrda/train_img", (2, 3, 256, 256))).double()
    label = torch.from_numpy(labels("open/hrda/train_lab", 2, 16, 16, 16))
    return model, model.analyse(x), label


def test_hrda_weighs_losses_as_the_authors_do(training):
    _, meta = golden("hrda")
    _, prediction, label = training
    rng = np.random.default_rng(zlib.crc32(b"open/hrda/train_w"))
    weight = torch.from_numpy(rng.random((2, 256, 256)).astype(np.float32)).double()
    for case, each in {"plain": torch.ones_like(weight), "weighted": weight}.items():
        theirs = meta["train"][case]["fp64"]["losses"]
        expected = [theirs[f"decode.{key}loss_seg"] for key in ("", "hr.")]
        found = [loss.item() for loss in losses_of(prediction, label, each)]
        assert found == pytest.approx(expected, rel=1e-10), case


def test_hrda_learns_as_the_authors_do(training):
    _, meta = golden("hrda")
    model, prediction, label = training
    sum(losses_of(prediction, label, torch.ones(label.shape))).backward()
    theirs = meta["train"]["plain"]["fp64"]
    parameters = dict(model.named_parameters())
    for name, mean in theirs["grad_mean_abs"].items():
        # one of theirs may be two of ours: keys and values
        ours, _ = rename({name: torch.empty(2, 1)}, SEGMENTER, {}, Path(name))
        gradient = torch.cat([parameters[our].grad for our in ours])
        assert gradient.abs().mean().item() == pytest.approx(mean, rel=1e-10), name
        assert gradient.sum().item() == pytest.approx(theirs["grad_sum"][name], abs=1e-9), name
    norm, attention = model.head.fuse.bottleneck[1], model.attention_head.fuse[1]
    buffers = "train/buf/decode_head."
    found = {
        "train/feat3": prediction.context.features[3],
        "train/grad_conv_seg": model.head.classify.weight.grad[:, :, 0, 0],
        # two updates, context before detail
        f"{buffers}head.fuse_layer.bottleneck.bn.running_mean": norm.running_mean,
        f"{buffers}head.fuse_layer.bottleneck.bn.running_var": norm.running_var,
        f"{buffers}scale_attention.fuse_layer.bn.running_mean": attention.running_mean,
    }
    assert_golden("hrda", found)


def test_the_authors_detail_crops_are_among_ours():
    """They never draw the last place (and fail where there is no other); we draw all of them."""
    _, meta = golden("hrda")
    for case in meta["crop_bbox"]:
        (height, width), (rows, columns) = case["hw"], case["crop"]
        for y1, y2, x1, x2 in case.get("boxes", []):
            assert y1 % 8 == x1 % 8 == 0
            assert (y2 - y1, x2 - x1) == (rows, columns)
            assert y2 <= height
            assert x2 <= width
    model = hrda(128)
    model.generator = torch.Generator().manual_seed(0)
    drawn = {
        (b.rows.start, b.columns.start) for b in (model._draw_box(144, 152) for _ in range(500))
    }
    assert drawn == {(y, x) for y in (0, 8, 16) for x in (0, 8, 16, 24)}
