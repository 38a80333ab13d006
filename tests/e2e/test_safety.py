"""Nothing is lost: signals, NaN, damaged checkpoints, full disks, kills; through real runs."""

import os
import resource
import signal
import sys
from subprocess import PIPE, Popen

import pytest
import torch
from builders import folder
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback

from pipa.errors import Interrupted, PipaError
from pipa.evaluation.record import read_record
from pipa.models.saved import load_segmenter
from pipa.run.options import read_experiment
from pipa.run.train import train

from .conftest import TINY


@pytest.fixture
def options(tmp_path):
    source = folder(tmp_path / "synthetic", 3)
    target = folder(tmp_path / "photos", 3, labelled=False, shift=25, seed=50)
    return (
        *TINY,
        f"--data.source={source}",
        f"--data.target={target}",
        "--method.start=1",
        "--trainer.val_check_interval=2",
    )


def one_line(done, code=2):
    assert done.code == code, done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    return lines[0]


def trained(run):
    """Student, teacher, heads and banks at the last checkpoint, and the optimiser's moments."""
    found = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    moments = found["optimizer_states"][0]["state"]
    return found["state_dict"] | {
        f"{number}.{name}": value
        for number, state in moments.items()
        for name, value in state.items()
    }


class SignalDuring(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)
            if self.number == signal.SIGTERM:  # once of its own, once from `pipa ablate`
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_a_resumed_run_is_the_same(pipa, options, tmp_path, number):
    whole, half = tmp_path / "whole", tmp_path / "half"
    before = signal.getsignal(number)
    sections = read_experiment(
        ArgumentParser(), [*options, "--trainer.max_steps=5", f"--out={half}"]
    )
    with pytest.raises(Interrupted, match=r"after step 3; .* --resume .*half") as stop:
        train(**sections, callbacks=[SignalDuring(2, number)])
    assert stop.value.number == number
    assert signal.getsignal(number) is before
    assert not (half / "results.json").exists()
    assert not (half / "model").exists()
    for arguments in (("--resume", half), (*options, "--trainer.max_steps=5", f"--out={whole}")):
        done = pipa("train", *arguments)
        assert done.code == 0, done.err
    expected, got = trained(whole), trained(half)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


def test_a_run_that_is_made_longer_and_stopped_has_not_ended(pipa, options, tmp_path):
    """Its scores would pass for those of the longer one."""
    out = tmp_path / "run"
    assert pipa("train", *options, "--trainer.max_steps=2", f"--out={out}").code == 0
    assert read_record(out).finished
    (out / "model" / "mine.onnx").write_bytes(b"mine")
    refused = pipa("train", *options, "--trainer.max_steps=6", f"--out={out}", "--resume")
    assert refused.code == 2
    assert "mine.onnx would be removed" in refused.err.replace(": ", " ")
    assert read_record(out).finished
    (out / "model" / "mine.onnx").unlink()
    longer = [*options, "--trainer.max_steps=6", f"--out={out}", "--resume"]
    sections = read_experiment(ArgumentParser(), longer)
    with pytest.raises(Interrupted):
        train(**sections, callbacks=[SignalDuring(3, signal.SIGINT)])
    assert not read_record(out).finished
    assert not (out / "model").exists()
    assert load_segmenter(out).num_classes == 3


def test_sigterm_ends_the_command_with_one_line_and_143(options, tmp_path):
    """The real command with its loader's processes, all of which get the signal, as in SLURM."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pipa", "train", *options, f"--out={out}"]
    command += ["--trainer.max_steps=2000", "--data.workers=1"]
    command += ["--trainer.enable_progress_bar=true"]
    run = Popen(command, stdout=PIPE, stderr=PIPE, start_new_session=True)
    bar = b""
    while b"source=" not in bar and (more := run.stdout.read(1)):  # until steps are made
        bar += more
    os.killpg(run.pid, signal.SIGTERM)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 143, said
    assert b"Traceback" not in said
    assert said.splitlines()[-1].startswith(b"pipa: interrupted after step")
    assert (out / "checkpoints" / "last.ckpt").is_file()
    assert not (out / "results.json").exists()


class Poison(Callback):
    """Makes one weight of the student infinite before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            next(module.student.parameters()).data[0] = torch.inf


def test_a_checkpoint_with_nan_never_takes_the_place_of_a_good_one(options, tmp_path):
    """Logs, by which the losses are read anyway, are made after step 50; the run has 7."""
    out = tmp_path / "run"
    more = ("--trainer.max_steps=7", "--trainer.log_every_n_steps=50", f"--out={out}")
    sections = read_experiment(ArgumentParser(), [*options, *more])
    with pytest.raises(PipaError, match=r"loss/source is nan at step 3"):
        train(**sections, callbacks=[Poison(2)])
    assert sorted(file.name for file in (out / "checkpoints").iterdir()) == [
        "last.ckpt",
        "step2.ckpt",
    ]
    assert all(value.isfinite().all() for value in trained(out).values())


def test_a_run_that_diverges_is_one_line_and_no_model(pipa, options, tmp_path):
    out = tmp_path / "run"
    wild = ("--optim.lr=1e10", "--optim.clip=0", "--trainer.log_every_n_steps=50")
    steps = ("--trainer.max_steps=7", "--trainer.val_check_interval=7")
    said = one_line(pipa("train", *options, *wild, *steps, f"--out={out}"))
    assert "loss/" in said
    assert "at step" in said
    assert not (out / "model").exists()
    assert not list(out.rglob("*.ckpt"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(pipa, options, tmp_path, caplog):
    out = tmp_path / "run"
    assert pipa("train", *options, f"--out={out}", "--trainer.max_steps=3").code == 0
    last, before = (out / "checkpoints" / name for name in ("last.ckpt", "step2.ckpt"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, in the middle of some weights
    last.write_bytes(content)
    done = pipa("train", "--resume", out, "--trainer.max_steps=4")
    assert done.code == 0, done.err
    assert "damaged" in caplog.text
    assert str(before) in caplog.text
    for file in (out / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    assert "damaged" in one_line(pipa("train", "--resume", out, "--trainer.max_steps=6"))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    pipa, options, tmp_path, resume, caplog
):
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / ".last.ckpt.7.part").write_bytes(b"half")
    (out / "metrics.csv").write_text("step,loss/source\n0,1\n")
    again = ["--resume"] if resume else []
    done = pipa("train", *options, f"--out={out}", "--trainer.max_steps=2", *again)
    assert done.code == 0, done.err
    assert ("no checkpoint yet" in caplog.text) == resume
    assert not list(out.rglob("*.part"))


def test_a_full_disk_is_one_line_and_the_checkpoint_stays(pipa, options, tmp_path):
    out = tmp_path / "run"
    assert pipa("train", *options, f"--out={out}", "--trainer.max_steps=2").code == 0
    last = out / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    (out / "results.json").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        done = pipa("train", "--resume", out, "--trainer.max_steps=4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written (File too large)" in one_line(done)
    assert last.read_bytes() == before
    assert not list(out.rglob("*.part"))
    assert not (out / "results.json").exists()
