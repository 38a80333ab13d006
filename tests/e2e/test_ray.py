"""The example with Ray Data: killed half-way and started again, it does what is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import folder

import pipa as package
from pipa.files.images import read_image, read_label

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_predict.py"


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    pytest.importorskip("ray.data")
    torch.manual_seed(0)
    model = package.create_segmenter("small", 3).eval()
    package.save_segmenter(model, tmp_path / "model")
    images = folder(tmp_path / "data", 8, labelled=False) / "images"
    command = [sys.executable, str(EXAMPLE), "model", str(images), "--out", "out"]
    options = {
        "cwd": tmp_path,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": ""},
    }
    command += ["--processes", "1", "--batch", "2"]
    with subprocess.Popen(command, start_new_session=True, **options) as first:
        for line in first.stdout:
            if line.endswith(".png\n"):
                break
        os.killpg(first.pid, signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert done, "killed after its first output"
    again = subprocess.run(command, check=True, **options).stdout
    assert f"{8 - len(done)} of 8 images to label" in again
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    for source in images.iterdir():
        ids = read_label(tmp_path / "out" / "ids" / f"{source.stem}.png")
        np.testing.assert_array_equal(ids, model.predict(read_image(source)))
