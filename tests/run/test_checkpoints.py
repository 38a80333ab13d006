"""A checkpoint that a training cannot go on from is refused by name."""

import copy

import pytest
import torch

from pipa.errors import PipaError
from pipa.run.checkpoints import RunCheckpoints, newest_checkpoint

STATE = {
    "pytorch-lightning_version": "2.6.0",
    "global_step": 3,
    "state_dict": {},
    "optimizer_states": [],
    "loops": {},
    "callbacks": {},
}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("pytorch-lightning_version", "abc"),
        ("callbacks", 5),
        ("state_dict", [1]),
        ("global_step", "x"),
        ("loops", None),
    ],
)
def test_a_part_that_is_no_state_is_named(tmp_path, part, value):
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    torch.save(STATE, file)
    assert newest_checkpoint(tmp_path) == file
    torch.save(STATE | {part: value}, file)
    with pytest.raises(
        PipaError, match=rf"last.ckpt: holds no state .*({part} is missing|of no version)"
    ):
        newest_checkpoint(tmp_path)


def test_a_better_checkpoint_written_before_a_kill_is_not_written_over(tmp_path):
    """`last.ckpt` is older than the best one: its state knows the best score before that."""
    keeper = RunCheckpoints(tmp_path, "best", monitor="miou", mode="max")

    def state(score):
        keeper.best_model_path, keeper.best_model_score = str(tmp_path / "best.ckpt"), score
        keeper.best_k_models = {keeper.best_model_path: score}
        return copy.deepcopy(keeper.state_dict())

    older, newer = state(torch.tensor(10.0)), state(torch.tensor(30.0))
    torch.save({"callbacks": {keeper.state_key: newer}}, tmp_path / "best.ckpt")
    keeper.load_state_dict(older)
    assert keeper.best_model_score == 30
    first = keeper.state_dict() | {"best_model_path": "", "best_model_score": None}
    first["best_k_models"] = {}
    keeper.load_state_dict(first)
    assert keeper.best_model_score == 30, "the run was killed at its first score"
    better = state(torch.tensor(40.0))
    keeper.load_state_dict(better)
    assert keeper.best_model_score == 40
