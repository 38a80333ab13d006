"""Runs that SIGKILL ends, and that go on, end bit for bit as those that nothing ended.

`python tests/killed_runs.py` does twenty, at random moments too.
"""

import os
import signal

import pytest
from killed_runs import AT_WRITE, differences, ended, go_on, in_child, kill_at_write, options_of


@pytest.mark.parametrize(
    ("method", "workers", "write", "moment"),
    [
        ("pipa", 0, 3, "amid its bytes"),
        ("mic", 2, 2, "before it is in place"),
        ("adaptsegnet", 0, 4, "after"),
    ],
)
def test_a_run_that_is_killed_as_it_writes_a_checkpoint(tmp_path, method, workers, write, moment):
    assert moment in AT_WRITE
    whole, half = tmp_path / "whole", tmp_path / "half"
    options = options_of(method, workers, tmp_path / "data", steps=5)
    assert ended(in_child(["train", *options, f"--out={whole}"])) == 0
    child = in_child(["train", *options, f"--out={half}"], kill_at_write(moment, write))
    assert ended(child) == -signal.SIGKILL
    assert not (half / "results.json").exists()
    assert go_on(options, half) == 0
    assert differences(whole, half) == []
    assert not list(half.rglob("*.part"))


def test_a_run_that_is_killed_from_outside(tmp_path):
    """As soon as its first checkpoint is there, wherever the process is by then."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    options = options_of("pipa", 0, tmp_path / "data", steps=9)
    assert ended(in_child(["train", *options, f"--out={whole}"])) == 0
    child = in_child(["train", *options, f"--out={half}"])
    while not (half / "checkpoints" / "last.ckpt").exists():
        os.sched_yield()
    os.killpg(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    assert go_on(options, half) == 0
    assert differences(whole, half) == []
