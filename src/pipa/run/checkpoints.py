"""The checkpoints of a run: written so that none is ever lost, and the newest that can be read."""

import logging
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from packaging.version import InvalidVersion, Version

from pipa.errors import PipaError, first_line
from pipa.files.writing import replacing
from pipa.models.checkpoint import checkpoints_of, read_checkpoint

log = logging.getLogger("pipa")

PARTS = {
    "global_step": int,
    "state_dict": dict,
    "optimizer_states": list,
    "loops": dict,
    "callbacks": dict,
}
"""What a checkpoint must hold for a training to go on from it."""


class DurableCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the old one, waits for the disk, and puts it in its place."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; on an error the file that was there stays.

        Raises:
            PipaError: It cannot be written: the disk is full, say.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, durable=True) as part, part.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # Where the disk is full, torch complains about the position in the file.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise PipaError(
                f"cannot be written ({cause.strerror})",
                path,
                "The checkpoint before it is kept: make room, then continue with --resume.",
            ) from error


class RunCheckpoints(ModelCheckpoint):
    """Goes on with the checkpoints it has kept, also where a resumed run is longer or was moved.

    Lightning's own forgets the best score when the interval or the folder changes, and writes the
    next checkpoint over the best one, better or not.
    """

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint: the same for every interval."""
        return f"checkpoints by {self.monitor or 'step'}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of the run so far; forget files that are no longer there."""
        folder = Path(str(self.dirpath))
        state = {**self._latest(state_dict), "dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = str(folder / Path(state[name]).name) if state[name] else ""
        scores = {str(folder / Path(path).name): s for path, s in state["best_k_models"].items()}
        state["best_k_models"] = scores
        if all(Path(path).is_file() for path in scores):
            super().load_state_dict(state)

    def _latest(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state in the kept checkpoint, if it is better: the run was killed after that."""
        if not self.monitor:
            return state
        kept = Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"
        with suppress(PipaError, KeyError):
            own: dict[str, Any] = read_checkpoint(kept)["callbacks"][self.state_key]
            before = state["best_model_score"]  # None if the run was killed at the first score
            if before is None or own["best_model_score"] > before:
                return own
        return state


@contextmanager
def in_one_line(run: Path) -> Iterator[None]:
    """Turn an error of the file system, or of the trainer's options, into one line.

    Metrics fill a disk, too; and some options the trainer refuses only as it starts.

    Raises:
        PipaError: Something could not be read or written, or the trainer refuses its options.
    """
    try:
        yield
    except MisconfigurationException as error:
        problem = f"cannot be used ({first_line(error)})"
        raise PipaError(problem, "the options --trainer.*") from error
    except OSError as error:
        problem = f"cannot be read or written ({error.strerror or error})"
        remedy = (
            "The last checkpoint is kept: make room or give rights, then continue with --resume."
        )
        raise PipaError(problem, error.filename or run, remedy) from error


def has_checkpoint(run: Path) -> bool:
    """Whether a run has written a checkpoint, damaged or not."""
    return any((run / "checkpoints").glob("*.ckpt"))


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint to go on from: `last.ckpt`, or the one before if that is damaged.

    Returns:
        The newest checkpoint that is whole; None if the run has written none.

    Raises:
        PipaError: All checkpoints are damaged.
    """
    faults = []
    for file in checkpoints_of(run):
        try:
            refuse_damaged(file)
        except PipaError as error:
            faults.append(error)
            continue
        if faults:
            log.warning("%s Going on from %s", faults[0], file)
        return file
    if faults:
        raise faults[0]
    return None


def refuse_damaged(file: Path) -> None:
    """Read all of a checkpoint and compare its checksums.

    Raises:
        PipaError: It is damaged, or holds no state of a training.
    """
    content = read_checkpoint(file)
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise PipaError("is damaged", file) from error
    if broken is not None:
        raise PipaError(f"is damaged (in {broken})", file)
    try:
        Version(content["pytorch-lightning_version"])
    except (KeyError, TypeError, InvalidVersion) as error:
        raise PipaError(
            "holds no state of a training (of no version of Lightning)", file
        ) from error
    for part, kind in PARTS.items():
        if not isinstance(content.get(part), kind):
            raise PipaError(f"holds no state of a training ({part} is missing or wrong)", file)
