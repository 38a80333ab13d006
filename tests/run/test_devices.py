"""The devices that "auto" means: one, unless a launcher says how many."""

import logging

import pytest
import torch
from torch.distributed import DistError

from pipa.errors import PipaError
from pipa.files.threads import available_cores
from pipa.run.devices import settle_devices, told_of_lost_processes
from pipa.run.grid import default_jobs
from pipa.run.jobs import share_of_machine


@pytest.fixture
def eight_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


def test_auto_is_one_gpu_and_says_how_many_there_are(eight_gpus, caplog):
    with caplog.at_level(logging.INFO, "pipa"):
        assert settle_devices({"devices": "auto", "max_steps": 3})["devices"] == 1
    assert "8 GPUs are here, one is used; --trainer.devices 8 uses all" in caplog.text


def test_runs_side_by_side_have_a_gpu_each(eight_gpus, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    mine = [share_of_machine(3, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert mine == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [share_of_machine(2, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == [
        "GPU-a",
        "GPU-b",
    ]
    assert share_of_machine(1, 0)["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b", "one run has them all"


def test_there_are_as_many_runs_as_gpus(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert default_jobs("auto") == 4
    assert default_jobs("auto", 2) == 1
    assert default_jobs("cpu") == available_cores()


@pytest.mark.parametrize("devices", [4, "4", -1, "0,1", [0, 1]])
def test_a_number_that_was_given_stays(eight_gpus, devices):
    assert settle_devices({"devices": devices}) == {"devices": devices}


def test_torchrun_says_how_many(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1",
        "LOCAL_WORLD_SIZE": "4",
        "WORLD_SIZE": "8",
    }.items():
        monkeypatch.setenv(name, value)
    assert settle_devices({}) == {"devices": 4, "num_nodes": 2}


def test_srun_says_how_many(monkeypatch):
    for name, value in {"SLURM_NTASKS": "6", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert settle_devices({"devices": "auto"}) == {"devices": 3, "num_nodes": 2}


def test_only_the_error_of_a_lost_process_becomes_a_line(tmp_path):
    gone = "[/gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"
    for error in (RuntimeError(gone), DistError("NCCL")):
        with (
            pytest.raises(PipaError, match="another process of the run has ended"),
            told_of_lost_processes(tmp_path),
        ):
            raise error
    with pytest.raises(RuntimeError, match="sizes"), told_of_lost_processes(tmp_path):
        raise RuntimeError("sizes do not match")
