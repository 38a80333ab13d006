"""Resuming a run: its options must be those that it was trained with."""

from pathlib import Path
from typing import Any

from pipa.errors import PipaError
from pipa.evaluation.runs import flat, read_options


def refuse_other_options(run: Path, options: dict[str, Any]) -> None:
    """Refuse to resume a run with other options.

    Its speed and its length may change, and whether it skips a file that turned out to be faulty.

    Raises:
        PipaError: An option that changes the results differs.
    """
    before = read_options(run / "config.yaml")
    if not before:
        return  # `train` reports the fault of the folder
    free = {"out", "resume", "config", "compile", "checkpoint"}
    free |= {"data.workers", "data.cache", "data.on_error"}
    changed = [
        word
        for name, word in differences(before, options)
        if name not in free and not name.startswith("trainer.")
    ]
    if changed:
        problem = f"was trained with other options ({'; '.join(changed[:4])})"
        raise PipaError(problem, run, "Leave them as they were, or train anew with another --out.")


def differences(before: Any, now: Any) -> list[tuple[str, str]]:
    """List options that differ: the name, and a text with both values."""
    old, new = flat(before), flat(now)
    return [
        (name, f"{name}: {old.get(name)}, now {new.get(name)}")
        for name in sorted(old | new)
        if old.get(name) != new.get(name)
    ]
