"""Two processes learn what one learns from their batches together.

Run as a script, this file is one of the processes: Lightning starts the other by itself.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import folder
from torch import nn

import pipa
from pipa.batch import Batch, Labelled, Unlabelled
from pipa.data.module import UDAData
from pipa.run.devices import AveragedByMethod
from pipa.run.engine import build_trainer
from pipa.uda.mixing import Mixed
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.terms import PatchTerm, PixelTerm, TargetTerm
from pipa.uda.terms.base import supervised
from uda.steps import LABELS, Feed, batch_of, fit, small

STEPS = 3


class Follow(TargetTerm):
    """A pass over the unchanged target, with a parameter that no other pass uses."""

    name = "follow"

    def __init__(self) -> None:
        super().__init__(0.5)
        self.head = nn.Parameter(torch.ones(()))

    def forward(self, given):
        prediction = given.student.analyse(given.batch.target.image * self.head)
        return supervised(prediction, given.pseudo.label, given.pseudo.weight)


class Certain(SelfTraining):
    """Self-training without chance, whose losses are means over images.

    Not so in a real run: each process has its own draws, its own q_T and contrasts its own batch.
    """

    def mix(self, source, target, pseudo, generator):
        paste = source.label == 1
        return Mixed(
            torch.where(paste[:, None], source.image, target.image),
            torch.where(paste, source.label, pseudo.label),
            torch.where(paste, 1.0, pseudo.weight),
            paste | pseudo.sure,
        )


def method() -> Certain:
    late = {"width": 16, "dim": 8, "start": 100}  # heads that never get a gradient
    torch.manual_seed(1)
    return Certain(
        small(),
        LABELS,
        optim=Optim(lr=1e-3, warm_up=0),
        source_terms=[PixelTerm(**late)],
        target_terms=[Follow(), PatchTerm(**late)],
        confidence=0.0,  # every pixel is sure: the share of sure ones is the same everywhere
        momentum=0.5,
    )


@dataclass
class Share:
    """Every `world`-th image of joint batches of four, as the loader deals them out."""

    method: SelfTraining
    world: int

    def __iter__(self):
        mine = slice(self.method.global_rank, None, self.world)
        for seed in range(STEPS):
            batch = batch_of(seed, b=4)
            yield Batch(
                Labelled(batch.source.image[mine], batch.source.label[mine]),
                Unlabelled(batch.target.image[mine], batch.target.valid[mine]),
            )

    def __len__(self):
        return STEPS


def run(world: int) -> dict[str, Any]:
    module = method()
    strategy = AveragedByMethod() if world > 1 else "auto"
    options = {"devices": world, "strategy": strategy, "precision": "64-true"}
    fit(module, Share(module, world), **options)
    return {"state": module.state_dict(), "rank": module.global_rank}


def alike(world: int) -> dict[str, Any]:
    """The state of a run with draws, banks and batch norms, on different batches in each."""
    torch.manual_seed(1)
    student = pipa.create_segmenter(
        "daformer_small",
        LABELS.num_classes,
        backbone={"settings": {"widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}},
        head={"width": 16},
    )
    module = SelfTraining(
        student,
        LABELS,
        optim=Optim(lr=1e-3, warm_up=0, clip=1.0),
        source_terms=[PixelTerm(memory=5, width=16, dim=8)],
        target_terms=[PatchTerm(memory=30, width=16, dim=8, queries=20, threshold=0.0)],
        align_shares=0.5,
    )
    feed = Feed([batch_of(10 * seed + module_rank()) for seed in range(STEPS)])
    fit(module, feed, devices=world, strategy=AveragedByMethod())
    return {"state": module.state_dict(), "losses": module.losses}


def module_rank() -> int:
    """The number of this process, which Lightning says in the second one's environment."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def environment() -> dict[str, str]:
    """The environment of a fresh process: paths of `pipa` and the tests, without Lightning's."""
    path = os.pathsep.join(map(str, (Path(pipa.__file__).parents[1], Path(__file__).parents[1])))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_joint_batch(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    equal_everywhere(*(torch.load(tmp_path / f"alike{rank}.pt") for rank in (0, 1)))
    expected = run(1)["state"]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-9, msg=name)
    start = method().state_dict()
    moved = {n for n, tensor in expected.items() if not torch.equal(tensor, start[n].to(tensor))}
    assert {name.split(".")[0] for name in moved} == {"student", "teacher", "terms"}


def equal_everywhere(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Check that weights, statistics, banks and losses are the same, and have changed."""
    for kind in ("state", "losses"):
        assert first[kind].keys() == second[kind].keys()
        for name, tensor in first[kind].items():
            assert torch.equal(second[kind][name], tensor), name
    state = first["state"]
    assert (state["terms.0.bank_label"] != 255).any()
    assert (state["terms.1.bank_label"] != 255).any()
    assert any("running_mean" in name and tensor.any() for name, tensor in state.items())


@pytest.mark.slow
def test_a_run_on_two_devices_through_the_command_line(tmp_path):
    source = folder(tmp_path / "source", 4)
    target = folder(tmp_path / "target", 4, labelled=False, seed=50)
    held_out = folder(tmp_path / "held_out", 3, seed=90)
    options = [
        f"--data.source={source}",
        f"--data.target={target}",
        f"--data.validation={held_out}",
        f"--out={tmp_path / 'run'}",
        "--student.name=small",
        "--data.crop=32",
        "--data.pair_crop=32",
        "--data.workers=0",
        "--trainer.devices=2",
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=3",
        "--trainer.enable_progress_bar=false",
    ]
    command = [sys.executable, "-m", "pipa", "train", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "results.json").is_file()


def test_several_devices_get_the_strategy_that_averages_once(tmp_path):
    data = UDAData(str(folder(tmp_path / "source", 1)), crop=32, workers=0)
    options = {"devices": 2, "accelerator": "cpu", "max_steps": 1}
    strategy = build_trainer(tmp_path / "run", data, options, []).strategy
    assert isinstance(strategy, AveragedByMethod)
    named = build_trainer(tmp_path / "run", data, options | {"strategy": "ddp"}, []).strategy
    assert isinstance(named, AveragedByMethod)
    one = build_trainer(tmp_path / "run", data, options | {"devices": 1}, []).strategy
    assert not isinstance(one, AveragedByMethod)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    found = run(2)
    torch.save(found["state"], out / f"{found['rank']}.pt")
    torch.save(alike(2), out / f"alike{found['rank']}.pt")
