"""What a run's folder holds, whether a run may begin there, and clearing it."""

import logging
import os
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from pipa.errors import PipaError
from pipa.models.checkpoint import read_checkpoint
from pipa.models.hub import FILES
from pipa.models.saved import ADAPTED_FOLDER, KEPT_FOLDER, SOURCE_ONLY_FOLDER
from pipa.run.checkpoints import has_checkpoint, newest_checkpoint

log = logging.getLogger("pipa")

NETWORKS = (KEPT_FOLDER, ADAPTED_FOLDER, SOURCE_ONLY_FOLDER)
RUN = {
    "": (
        *("config.yaml", "metrics.csv", "hparams.yaml", "results.json", "confusion.csv"),
        *("report.html", "report.json", "demo.json", ".*.part"),
    ),
    "checkpoints": ("*.ckpt", ".*.part"),
    "tensorboard": ("events.out.tfevents.*", "hparams.yaml"),
    **dict.fromkeys((*NETWORKS, ".*.new", ".*.old"), FILES),
}
"""Names of the files that a run writes, by folder; a killed process leaves the hidden ones."""


def foreign_files(run: Path) -> list[Path]:
    """Everything in a run's folder that no run writes; links are never followed."""
    if not is_folder(run):
        return [run]
    found = []
    for path in sorted(run.iterdir()):
        known = [names for folder, names in RUN.items() if fnmatch(path.name, folder)]
        if is_folder(path) and known:
            found += [file for file in sorted(path.iterdir()) if not is_named(file, known[0])]
        elif not is_named(path, RUN[""]):
            found.append(path)
    return found


def is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def is_named(path: Path, patterns: Sequence[str]) -> bool:
    """Whether it is a file with a name of these patterns."""
    known = any(fnmatch(path.name, pattern) for pattern in patterns)
    return known and path.is_file() and not path.is_symlink()


def clear(run: Path) -> None:
    """Remove a run's folder, if there is one.

    Raises:
        PipaError: It holds something that no run writes, or cannot be removed; then all stays.
    """
    try:
        if not run.exists() and not run.is_symlink():
            return
        found = foreign_files(run)
        if found:
            problem = f"would be replaced, and holds what no run wrote ({found[0].name})"
            raise PipaError(problem, run, "Move it away, or give another --out.")
        shutil.rmtree(run)
    except OSError as error:
        problem = f"cannot be removed ({error.strerror})"
        raise PipaError(problem, run, "Give another --out.") from error


def forget_end(run: Path) -> None:
    """Remove what a run wrote at its end: it goes on, and the scores are not those of its options.

    Its checkpoints stay.

    Raises:
        PipaError: A folder of a network holds something that no run writes; then all stays.
    """
    ends = [run / name for name in NETWORKS if (run / name).exists()]
    foreign = [path for path in foreign_files(run) if path in ends or path.parent in ends]
    if foreign:
        problem = "would be removed, as the run goes on and its network changes"
        raise PipaError(problem, foreign[0], "Move it away first.")
    for name in ("results.json", "confusion.csv", "report.html", "report.json"):
        (run / name).unlink(missing_ok=True)
    for end in ends:
        shutil.rmtree(end, ignore_errors=True)


def holds_run(out: Path) -> bool:
    """Whether a run has begun here, or ended."""
    return has_checkpoint(out) or (out / "results.json").exists() or (out / KEPT_FOLDER).exists()


def prepare_folder(out: Path, resume: bool, steps: int) -> Path | None:
    """Make the run's folder, and find the checkpoint to go on from.

    A run that was killed before its first checkpoint starts anew, with `resume` and without.

    Returns:
        The checkpoint; None for a run that starts at its first step.

    Raises:
        PipaError: The folder holds a run and is not to be resumed, or the other way round, or an
            ablation, or files of the user's that a run would replace, or it cannot be written, or
            all its checkpoints are damaged.
    """
    if (out / "table.json").exists() or any(out.glob("*/seed*")):
        raise PipaError("is the folder of an ablation", out, "Give another --out.")
    if resume:
        last = checkpoint_to_resume(out, steps)
    elif holds_run(out):
        remedy = "Give --resume to continue it, or another --out."
        raise PipaError("holds a run already", out, remedy)
    else:
        last = None
        refuse_to_write_over(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in (out / "checkpoints").glob(".*.part"):  # by a process that was killed
            left.unlink()
    except OSError as error:
        raise PipaError(f"cannot be made ({error.strerror})", out, "Give another --out.") from None
    if not os.access(out, os.W_OK):
        raise PipaError("is not writable", out, "Give another --out.")
    return last


def refuse_to_write_over(out: Path) -> None:
    """Refuse a folder of the user's with a file that a new run would replace.

    Raises:
        PipaError: It holds such a file, and others that no run writes.
    """
    taken = [name for name in RUN[""] if (out / name).exists()]
    if taken and foreign_files(out):
        problem = f"holds {taken[0]}, which a run would replace, and files that no run wrote"
        raise PipaError(problem, out, "Give another --out, such as runs/mine.")


def checkpoint_to_resume(out: Path, steps: int) -> Path | None:
    """The newest checkpoint; None where a run began and was killed before its first one.

    Raises:
        PipaError: There is no run, it has made all its steps, or its checkpoints are damaged.
    """
    last = newest_checkpoint(out)
    if last is None:
        if not any((out / name).exists() for name in ("config.yaml", "metrics.csv", "checkpoints")):
            remedy = "Train without --resume first."
            raise PipaError("no checkpoint to resume from", out, remedy)
        log.warning("%s has no checkpoint yet: the run starts at its first step", out)
    elif (out / "results.json").is_file() and (n := read_checkpoint(last)["global_step"]) >= steps:
        raise PipaError(f"has {n} steps already", out, "Give more: --trainer.max_steps.")
    return last
