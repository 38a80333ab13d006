"""What a run's folder holds, and the one way of clearing it: never what a run did not write."""

import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from pipa.errors import PipaError

MODEL = ("config.json", "model.safetensors")
RUN = {
    "": ("config.yaml", "metrics.csv", "hparams.yaml", "results.json", "demo.json", ".*.part"),
    "checkpoints": ("*.ckpt", ".*.part"),
    "tensorboard": ("events.out.tfevents.*", "hparams.yaml"),
    "model": MODEL,
    "model_adapted": MODEL,
    "source_only": MODEL,
    ".*.new": MODEL,
}
"""Names of the files that a run writes, by folder; a killed process leaves `.part` and `.new`."""


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
