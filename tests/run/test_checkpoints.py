"""A checkpoint that a training cannot go on from is refused by name."""

import pytest
import torch

from pipa.errors import PipaError
from pipa.run.checkpoints import newest_checkpoint

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
