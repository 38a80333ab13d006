"""Networks by name and on disk, and errors about them."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import pipa
from pipa.classes import LabelSpace
from pipa.errors import PipaError

LABELS = LabelSpace(("road", "sky"), ((1, 2, 3), (4, 5, 6)))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    pipa.save_segmenter(pipa.create_segmenter("small", 2), path, LABELS)
    return path


@pytest.mark.parametrize("name", ["resnet", "daformer_mit_b9", "small_fpn", "daformer_", ""])
def test_a_name_that_is_none(name):
    with pytest.raises(PipaError, match="no network is called"):
        pipa.create_segmenter(name, 2)


@pytest.mark.parametrize(
    "options",
    [{"windows": 3}, {"head": {"widht": 3}}, {"backbone": {"drop": 1}}, {"pretrained": "x"}],
)
def test_an_option_that_is_none(options):
    with pytest.raises(PipaError, match="has no option"):
        pipa.create_segmenter("small", 2, **options)


def test_weights_that_cannot_be_had(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PipaError, match="no pretrained weights") as caught:
            pipa.create_segmenter("daformer_mit_b0", 2, pretrained=where)
        assert "\n" not in str(caught.value)
    with pytest.raises(PipaError, match="`pipa convert"):
        pipa.create_segmenter("daformer_mit_b0", 2, pretrained=tmp_path / "config.json")


def test_weights_of_another_network_are_told_of_once(tmp_path, capfd):
    """The error is enough: transformers warned beside it, in two lines of its own."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PipaError, match="no pretrained weights"):
        pipa.create_segmenter("daformer_mit_b0", 2, pretrained=tmp_path)
    assert capfd.readouterr().err == ""


def test_a_pretrained_folder_is_not_needed_again(tmp_path):
    from transformers import MobileNetV2Config, MobileNetV2Model

    config = MobileNetV2Config(depth_multiplier=0.35, tf_padding=False)
    MobileNetV2Model(config).save_pretrained(tmp_path / "pretrained")
    model = pipa.create_segmenter("fpn_mobilenet_v2", 2, pretrained=tmp_path / "pretrained")
    assert model.training
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    pipa.save_segmenter(model, tmp_path / "model")
    (tmp_path / "pretrained").rename(tmp_path / "gone")
    again = pipa.load_segmenter(tmp_path / "model").train()
    assert not any(m.training for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(model.predict(image), again.predict(image))
    assert again.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_an_old_network_goes_only_when_the_new_one_is_there(folder, tmp_path, monkeypatch):
    """A folder that is mounted can be emptied, but neither removed nor renamed."""
    pipa.save_segmenter(pipa.create_segmenter("small", 2), folder)
    rename = Path.rename

    def refused(self, target):
        if self == folder:
            raise OSError(errno.EBUSY, "busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PipaError, match="cannot be written"):
        pipa.save_segmenter(pipa.create_segmenter("small", 3), folder)
    assert pipa.load_segmenter(folder).num_classes == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    class Network(torch.nn.Conv2d):
        def forward(self, image):
            return super().forward(image), [image]

    student = pipa.Wrapped(Network(3, 2, 1), num_classes=2, channels=[3])
    assert len(list(student.parameters())) == 2
    with pytest.raises(PipaError, match="not built by create_segmenter"):
        pipa.save_segmenter(student, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(PipaError, match="has no layers"):
        pipa.Wrapped(lambda image: (image, [image]), num_classes=3, channels=[3])


def test_a_network_replaces_one_and_nothing_else(folder, tmp_path):
    model = pipa.create_segmenter("small", 3)
    pipa.save_segmenter(model, folder)
    assert pipa.load_segmenter(folder).num_classes == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PipaError, match="not a saved network"):
        pipa.save_segmenter(model, folder)
    with pytest.raises(PipaError, match="cannot be written"):
        pipa.save_segmenter(model, folder / "notes.txt" / "below")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_labels_and_size_travel_with_a_loaded_network(folder, tmp_path):
    model = pipa.load_segmenter(folder)
    assert (model.labels, model.resize) == (LABELS, None)
    model.resize = 240, 320
    pipa.save_segmenter(model, tmp_path / "copy")
    copy = pipa.load_segmenter(tmp_path / "copy")
    assert (copy.labels, copy.resize) == (LABELS, (240, 320))


def test_a_file_of_the_folder_or_the_folder_of_a_run_will_do(folder, tmp_path):
    for path in (folder / "model.safetensors", folder / "config.json", tmp_path):
        assert pipa.load_segmenter(path).num_classes == 2


def test_folders_that_hold_no_network(folder, tmp_path):
    with pytest.raises(PipaError, match="student only"):
        pipa.load_segmenter(folder, weights="teacher")
    with pytest.raises(PipaError, match="no such file"):
        pipa.load_segmenter(tmp_path / "nowhere")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": "else"}))
    with pytest.raises(PipaError, match="not of a pipa network"):
        pipa.load_segmenter(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(PipaError, match="holds no network"):
        pipa.load_segmenter(folder)
    config["segmenter"]["num_classes"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PipaError, match="of another shape: head"):
        pipa.load_segmenter(folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(PipaError, match=r"model\.safetensors: cannot be read"):
        pipa.load_segmenter(folder)


def test_student_and_teacher_of_a_run(tmp_path):
    student, teacher = pipa.create_segmenter("small", 2), pipa.create_segmenter("small", 2)
    state = {f"student.{k}": v for k, v in student.state_dict().items()}
    state |= {f"teacher.network.{k}": v for k, v in teacher.state_dict().items()}
    state["terms.0.head.weight"] = torch.zeros(3)
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": state,
        "hyper_parameters": {
            "student": {"name": "small", "num_classes": 2, "pretrained": None},
            "labels": {"names": ["road", "sky"], "colours": [[1, 2, 3], [4, 5, 6]]},
            "resize": [240, 320],
        },
    }
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    for weights, expected in {"student": student, "teacher": teacher}.items():
        model = pipa.load_segmenter(path, weights)
        assert (model.labels, model.resize) == (LABELS, (240, 320))
        for name, tensor in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
    content["state_dict"] = {k: v for k, v in state.items() if k.startswith("student")}
    torch.save(content, path)
    with pytest.raises(PipaError, match="without a teacher"):
        pipa.load_segmenter(path, "teacher")
    (tmp_path / "cut.ckpt").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PipaError, match="damaged"):
        pipa.load_segmenter(tmp_path / "cut.ckpt")


def test_a_run_that_did_not_end_lends_its_newest_whole_checkpoint(tmp_path, caplog):
    model = pipa.create_segmenter("small", 2)
    content = {
        "pytorch-lightning_version": "2.6.6",
        "global_step": 40,
        "state_dict": {f"student.{k}": v for k, v in model.state_dict().items()},
        "hyper_parameters": {"student": model.config, "labels": None},
    }
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(content, folder / "step40.ckpt")
    (folder / "last.ckpt").write_bytes((folder / "step40.ckpt").read_bytes()[:3000])
    found = pipa.load_segmenter(tmp_path / "run")
    assert torch.equal(found.head.classify.weight, model.head.classify.weight)
    assert re.search(r"last\.ckpt: is damaged.*student is of .*step40\.ckpt, step 40", caplog.text)
    with pytest.raises(PipaError, match=r"last\.ckpt: is damaged"):
        pipa.load_segmenter(tmp_path / "run", "teacher")
    (folder / "step40.ckpt").unlink()
    with pytest.raises(PipaError, match=r"last\.ckpt: is damaged"):
        pipa.load_segmenter(tmp_path / "run")
    # a finished run has its student in model/, and its teacher only here
    torch.save(content | {"state_dict": state_of_teacher(model)}, folder / "last.ckpt")
    pipa.save_segmenter(pipa.create_segmenter("small", 3), tmp_path / "run" / "model")
    assert pipa.load_segmenter(tmp_path / "run").num_classes == 3
    assert pipa.load_segmenter(tmp_path / "run", "teacher").num_classes == 2


def state_of_teacher(model):
    return {f"teacher.network.{k}": v for k, v in model.state_dict().items()}
