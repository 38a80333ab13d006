"""Two processes of one run, started as a cluster starts them, on the CPU (gloo)."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import folder

import pipa

STEPS = 4

TERM = """
import os, signal
from pathlib import Path

import pipa


class Dies(pipa.TargetTerm):
    "Ends the second process in its third step, once."

    name = "dies"

    def __init__(self) -> None:
        super().__init__(0.001)
        self.calls = 0

    def forward(self, given):
        self.calls += 1
        mark = Path(os.environ["MARK"])
        if self.calls == 3 and os.environ.get("SLURM_PROCID") == "1" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return given.student(given.batch.target.image).square().mean()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the data, and the module of the term."""
    here = tmp_path_factory.mktemp("two")
    folder(here / "source", 4)
    folder(here / "target", 4, labelled=False, seed=50)
    folder(here / "held_out", 3, seed=90)
    (here / "deadly.py").write_text(TERM)
    return here


def command(place: Path, out: str) -> list[str]:
    return [
        "-m",
        "pipa",
        "train",
        f"--data.source={place / 'source'}",
        f"--data.target={place / 'target'}",
        f"--data.validation={place / 'held_out'}",
        f"--out={place / out}",
        "--method.terms=[deadly.Dies]",
        "--student.name=small",
        "--data.crop=32",
        "--data.workers=0",
        "--optim.warm_up=0",
        "--pixel.memory=4",
        "--patch.threshold=0.1",
        "--patch.start=0",
        f"--trainer.max_steps={STEPS}",
        "--trainer.val_check_interval=1",
        "--trainer.limit_val_batches=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


def environment(place: Path, **more: str) -> dict[str, str]:
    """The environment of a fresh process, without what Lightning or a cluster left in it."""
    ours = [Path(pipa.__file__).parents[1], place]
    path = os.pathsep.join(map(str, ours))
    base = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return os.environ | base | {"MARK": str(place / "mark")} | more


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def under_slurm(place: Path, out: str, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """What `srun --ntasks 2` does: one process per task, told who it is."""
    common = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "pipa",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_STEP_ID": "0",
        "SRUN_DEBUG": "3",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    tasks = [
        subprocess.Popen(
            [sys.executable, *command(place, out), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(place, **common, SLURM_PROCID=rank, SLURM_LOCALID=rank),
        )
        for rank in ("0", "1")
    ]
    written = [task.communicate(timeout=500) for task in tasks]
    return [
        subprocess.CompletedProcess(task.args, task.returncode, *texts)
        for task, texts in zip(tasks, written, strict=True)
    ]


def state_of(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


@pytest.mark.slow
def test_torchrun_and_srun_and_a_killed_rank(place):
    # srun: the second process dies in its third step, the first one says so and ends
    first, second = under_slurm(place, "srun")
    assert second.returncode == -signal.SIGKILL
    assert first.returncode == 2, first.stderr
    assert "another process of the run has ended" in first.stderr
    assert "Traceback" not in first.stderr

    # both go on from the second step
    resumed = under_slurm(place, "srun", "--resume")
    assert [task.returncode for task in resumed] == [0, 0], resumed[0].stderr
    assert "IoU" in resumed[0].stdout
    assert resumed[1].stdout == ""

    # torchrun, to the end at once, learns the same to the bit
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, *command(place, "torchrun")],
        capture_output=True,
        text=True,
        env=environment(place),
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == resumed[0].stdout.count("wrote ") == 1
    assert "2 processes: a step sees 4 images of each domain, 2 in each" in done.stderr
    whole, half = state_of(place / "torchrun"), state_of(place / "srun")
    assert whole["global_step"] == half["global_step"] == STEPS
    for name, tensor in whole["state_dict"].items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(half["state_dict"][name], tensor), name
    kept = half["optimizer_states"][0]["state"]
    for number, state in whole["optimizer_states"][0]["state"].items():
        assert all(torch.equal(kept[number][name], value) for name, value in state.items())
