"""The real command line, called in this process: the same code without seconds of imports."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pipa.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def pipa(capfd) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return call


TINY = (
    "--student.name=small",
    "--data.crop=32",
    "--data.batch_size=2",
    "--data.workers=0",
    "--data.pair_crop=32",
    "--optim.lr=3e-3",
    "--optim.head=1",
    "--optim.warm_up=2",
    "--pixel.width=16",
    "--pixel.dim=8",
    "--patch.width=16",
    "--patch.dim=8",
    "--patch.memory=96",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
    "--trainer.val_check_interval=100",
)
"""What makes a run small, with one validation at its end; add data, steps and a folder."""
