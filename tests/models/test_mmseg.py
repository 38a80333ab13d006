"""Checkpoints of others: every name accounted for, or refused."""

import gzip
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import GOLDEN, state

import pipa
from pipa.data.tables import named
from pipa.errors import PipaError
from pipa.models.backbones import mit
from pipa.models.checkpoint import check_names, read_checkpoint
from pipa.models.mmseg import rename
from pipa.models.mmseg_names import (
    DROPPED,
    DROPPED_BESIDE,
    DROPPED_OF_ENCODER,
    ENCODER,
    SEGMENTER,
)
from pipa.models.saved import convert

KINDS = {
    "ckpt_DAFormer_mitb5": "daformer_mit_b5",
    "ckpt_HRDA_mitb5": "hrda_mit_b5",
    "ckpt_MIC_seg_mitb5": "hrda_mit_b5",
    "ckpt_PiPa_DAFormer_mitb5": "daformer_mit_b5",
    "ckpt_PiPa_mitb5": "hrda_mit_b5",
}


@cache
def keys() -> dict[str, dict[str, tuple[int, ...]]]:
    content = json.loads(gzip.decompress((GOLDEN / "checkpoint_keys.json.gz").read_bytes()))
    return {name: {key: tuple(shape) for key, shape in rows} for name, rows in content.items()}


@cache
def network(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return pipa.create_segmenter(name, 19).state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_a_checkpoint_has_its_place(kind):
    networks = [
        {
            name.removeprefix(prefix): shape
            for name, shape in keys()[kind].items()
            if name.startswith(prefix)
        }
        for prefix in ("model.", "ema_model.", "imnet_model.")
    ]
    assert networks[0] == networks[1] == networks[2]
    chosen = {name: torch.empty(shape, device="meta") for name, shape in networks[0].items()}
    ours, _ = rename(chosen, SEGMENTER, DROPPED, Path(kind))
    check_names(network(KINDS[kind]), ours, Path(kind))
    others = {n: torch.empty(0) for n in keys()[kind] if not n.startswith(("model.", "ema_model."))}
    rename(others, [], DROPPED_BESIDE, Path(kind))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint as PiPa (HRDA) writes it, with MiT-B0: three networks and two loose heads."""
    shapes = keys()["hrda_mit_b0_segmentor"]
    extra = {
        k: (2, 2) for k in keys()["pipa_hrda_mit_b1_segmentor"] if k.split(".")[0] == "proj_head"
    }
    content = {}
    for prefix in ("model.", "ema_model.", "imnet_model."):
        for name, tensor in state(shapes | extra).items():
            content[prefix + name] = tensor + (prefix == "ema_model.")
    content |= state({"project.0.weight": (3, 3, 1, 1), "classifier.bias": (19,)})
    meta = {
        "CLASSES": [f"class {i}" for i in range(19)],
        "PALETTE": [[i, 2 * i, 255 - i] for i in range(19)],
        "iter": 60000,
    }
    path = tmp_path_factory.mktemp("authors") / "pipa.pth"
    torch.save({"meta": meta, "state_dict": content, "optimizer": {"state": {}}}, path)
    return path


def test_student_and_teacher_come_out_of_one_file(checkpoint, tmp_path):
    bias = state({"decode_head.head.conv_seg.bias": (19,)})["decode_head.head.conv_seg.bias"]
    for weights, expected in {"student": bias, "teacher": bias + 1}.items():
        model = pipa.load_segmenter(checkpoint, weights)
        torch.testing.assert_close(model.head.classify.bias, torch.nn.Parameter(expected))
        assert not model.training
    report = convert(checkpoint, tmp_path / "out", "teacher")
    assert "hrda_mit_b0, 19 classes, 250 tensors" in report
    assert "projection" in report
    assert "ImageNet encoder" in report
    loaded = pipa.load_segmenter(tmp_path / "out")
    assert loaded.labels.names[3] == "class 3"
    assert loaded.labels.colours[3] == (3, 6, 252)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    image = np.zeros((40, 70, 3), np.uint8)
    assert np.array_equal(loaded.predict(image), model.predict(image))


def test_a_checkpoint_in_part_is_refused_with_the_list(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"].pop("model.backbone.block2.1.attn.q.bias")
    torch.save(content, tmp_path / "missing.pth")
    with pytest.raises(
        PipaError, match=r"missing: \S+stages\.1\.blocks\.1\.attention\.q_proj\.bias"
    ):
        pipa.load_segmenter(tmp_path / "missing.pth")
    content["state_dict"]["model.backbone.surprise.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "more.pth")
    with pytest.raises(PipaError, match=r"unexpected: backbone\.surprise\.weight"):
        pipa.load_segmenter(tmp_path / "more.pth")
    content["state_dict"]["loose.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "loose.pth")
    with pytest.raises(PipaError, match=r"unexpected: loose\.weight"):
        pipa.load_segmenter(tmp_path / "loose.pth")


def test_another_number_of_classes_is_read_off_the_shapes(tmp_path):
    shapes = dict(keys()["daformer_mit_b0_segmentor"])
    shapes |= {"decode_head.conv_seg.weight": (7, 256, 1, 1), "decode_head.conv_seg.bias": (7,)}
    torch.save(state(shapes), tmp_path / "plain.pth")
    model = pipa.load_segmenter(tmp_path / "plain.pth")
    assert (model.num_classes, model.labels) == (7, None)
    with pytest.raises(PipaError, match="no teacher"):
        pipa.load_segmenter(tmp_path / "plain.pth", weights="teacher")
    given = named(tuple("abcdefg"), "the test").labels
    assert "--classes" not in convert(tmp_path / "plain.pth", tmp_path / "a", labels=given)
    assert pipa.load_segmenter(tmp_path / "a").labels == given
    assert "names: --classes" in convert(tmp_path / "plain.pth", tmp_path / "b")
    with pytest.raises(PipaError, match="--classes: are 19, and the network has 7 classes"):
        convert(tmp_path / "plain.pth", tmp_path / "c", labels=pipa.CITYSCAPES)
    assert not (tmp_path / "c").exists()


class Bomb:
    def __reduce__(self):
        return print, ("ran",)


def test_code_in_a_pickle_never_runs(tmp_path, capsys):
    torch.save({"state_dict": {}, "meta": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"meta": Bomb()}))
    for name, complaint in {"bomb.pth": r"\(print\).* code", "bare.pth": "no PyTorch"}.items():
        with pytest.raises(PipaError, match=complaint):
            pipa.load_segmenter(tmp_path / name)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "damaged"),
        (b"no checkpoint at all", "damaged"),
        (b"PK\x03\x04 truncated", "damaged"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, complaint):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(PipaError, match=complaint) as caught:
        read_checkpoint(path)
    assert caught.value.where == path


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"epoch": 3}, [torch.zeros(1)]])
def test_checkpoints_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(PipaError):
        pipa.load_segmenter(tmp_path / "x.pth")


def test_imagenet_weights_become_a_folder_for_pretrained(tmp_path):
    theirs = state(keys()["mit_b0_backbone"])
    theirs |= {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    torch.save(theirs, tmp_path / "mit_b0.pth")
    report = convert(tmp_path / "mit_b0.pth", tmp_path / "mit_b0")
    assert "dropped 2 of the classifier of ImageNet" in report
    with pytest.raises(PipaError, match="without a head"):
        pipa.load_segmenter(tmp_path / "mit_b0.pth")
    backbone = mit("b0", pretrained=tmp_path / "mit_b0")
    ours, _ = rename(theirs, ENCODER, DROPPED_OF_ENCODER, tmp_path)
    for name, tensor in backbone.encoder.state_dict().items():
        assert torch.equal(tensor, ours[name]), name
    with pytest.raises(PipaError, match="not MiT-B1"):
        mit("b1", pretrained=tmp_path / "mit_b0")

    # the names that transformers writes to disk, in a file of torch
    from safetensors.torch import load_file

    hub = load_file(tmp_path / "mit_b0/model.safetensors")
    assert any(name.startswith("encoder.block.") for name in hub)
    old = {f"segformer.{name}": tensor for name, tensor in hub.items()}
    torch.save(old | {"classifier.bias": torch.zeros(1000)}, tmp_path / "pytorch_model.bin")
    convert(tmp_path / "pytorch_model.bin", tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in hub.items())
