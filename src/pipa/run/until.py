"""When `pipa ablate` stops adding seeds: `--until`, `--until-rows` and `--most-seeds`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipa.errors import PipaError

MOST_SEEDS = 10
"""Where `--until` stops adding seeds, unless `--most-seeds` says otherwise."""


@dataclass(frozen=True)
class Until:
    """When to stop adding seeds."""

    half_width: float
    """Of Student's 95 % interval of the differences, in points of mIoU."""
    most_seeds: int
    """Stop at this many in any case."""
    rows: tuple[str, ...] = ()
    """The rows whose differences count; empty: all."""


def read_until(
    base: Any, names: Sequence[str], against: Sequence[str], rows: Sequence[str], seeds: int
) -> Until | None:
    """Read `--until`, `--until-rows` and `--most-seeds`.

    Args:
        base: The parsed options.
        names: The rows of the table.
        against: Those with which the others are compared.
        rows: Those that `--until-rows` names.
        seeds: How many seeds each of them starts with.

    Raises:
        PipaError: A number is impossible, or there is no difference to look at.
    """
    if base.until is None:
        if base.most_seeds is not None:
            raise PipaError("means nothing without --until", "--most-seeds", "Try --until 0.5")
        if base.until_rows:
            raise PipaError("means nothing without --until", "--until-rows", "Try --until 0.5")
        return None
    if not base.until > 0:
        raise PipaError(f"is {base.until}, must be more than 0", "--until")
    if len(names) < 2:
        raise PipaError("needs two rows, to look at their difference", "--until")
    most = max(MOST_SEEDS, seeds) if base.most_seeds is None else base.most_seeds
    if most < max(2, seeds):
        problem = f"is {most}, must be at least {max(2, seeds)}"
        raise PipaError(problem, "--most-seeds", "An interval needs two seeds.")
    if rows and not any(row != other for row in rows for other in against):
        remedy = "Name a row that is compared with it."
        raise PipaError(f"{rows[0]} is what all are compared with", "--until-rows", remedy)
    return Until(base.until, most, tuple(rows))
