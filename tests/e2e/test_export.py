"""`pipa export` with INT8, and the file in place of a model."""

import re
import shutil

import pytest
import torch
from builders import folder

import pipa as package
from pipa.cli.models import trained_size


@pytest.mark.slow
def test_eight_bits_and_their_price(pipa, tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    data = folder(tmp_path / "data", 3)
    names = package.LabelSpace(("ground", "water", "forest"), ((90, 60, 40),) * 3)
    package.save_segmenter(package.create_segmenter("small", 3), tmp_path / "model", names)
    out = tmp_path / "x.onnx"
    options = ["--size", "[48,64]", "--int8", data, "--images", "2"]
    done = pipa("export", tmp_path / "model", out, *options)
    assert done.code == 0, done.err
    found = re.search(r"INT8: mIoU (\S+) -> (\S+) \((\S+)\) on .*, (\S+) -> (\S+) MB", done.out)
    before, after, change, large, small = map(float, found.groups())
    assert change == pytest.approx(after - before, abs=0.011)
    assert small < 0.5 * large
    scored = pipa("eval", out, data)
    assert scored.code == 0, scored.err
    assert f"{after:.1f}" in scored.out, "the file that is left is the one that was scored"
    refused = pipa("export", tmp_path / "model", out, "--format", "torch", "--int8", data)
    assert (refused.code, "--int8: is for ONNX" in refused.err) == (2, True)


def test_the_window_is_the_runs_crop(tmp_path):
    hrda = package.create_segmenter("hrda_small", 2, detail=64)
    assert trained_size(tmp_path / "run", hrda) == (128, 128), "there is no config.yaml of a run"
    (tmp_path / "run" / "model").mkdir(parents=True)
    for crop, size in {"48": (48, 48), "[48, 64]": (48, 64)}.items():
        (tmp_path / "run" / "config.yaml").write_text(f"data: {{crop: {crop}}}")
        for model in ("", "model", "checkpoints/last.ckpt"):
            assert trained_size(tmp_path / "run" / model, hrda) == size


def test_without_labels_to_score_on_no_file_is_written(pipa, tmp_path):
    names = package.LabelSpace(("ground", "water"), ((90, 60, 40), (0, 0, 90)))
    package.save_segmenter(package.create_segmenter("small", 2), tmp_path / "model", names)
    data = folder(tmp_path / "data", 1)
    shutil.rmtree(data / "labels")
    done = pipa("export", tmp_path / "model", tmp_path / "x.onnx", "--int8", data)
    assert (done.code, "labels: the folder does not exist" in done.err) == (2, True)
    assert not (tmp_path / "x.onnx").exists()
