"""The error that users see: it says what is wrong, where, and what to do about it."""

from pathlib import Path


class PipaError(Exception):
    """A problem that the user can fix; the command line prints it as one line and exits with 2.

    Args:
        problem: What was found and what was expected, without a full stop at the end.
        where: The file, folder or option with the problem.
        remedy: What to do, as a sentence.
    """

    def __init__(self, problem: str, where: str | Path | None = None, remedy: str = "") -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        head = f"{where}: " if where is not None else ""
        super().__init__(" ".join(f"{head}{problem}. {remedy}".split()))

    def __reduce__(self) -> tuple[type["PipaError"], tuple[str, str | Path | None, str]]:
        """Pickle all parts, so that the error survives the way out of a data-loading process."""
        return type(self), (self.problem, self.where, self.remedy)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without a full stop; its name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def at_least(minimum: float | int, value: float | int, option: str) -> None:
    """Refuse a value below the minimum.

    Args:
        minimum: The smallest value that is allowed.
        value: The value to check.
        option: The option's name on the command line, without dashes.

    Raises:
        PipaError: The value is below the minimum, or NaN.
    """
    if not value >= minimum:
        raise PipaError(f"is {value}, must be at least {minimum}", f"--{option}")


def above_zero(value: float, option: str) -> None:
    """Refuse a value that is not above 0.

    Args:
        value: The value to check.
        option: The option's name on the command line, without dashes.

    Raises:
        PipaError: The value is 0 or below, or NaN.
    """
    if not value > 0:
        raise PipaError(f"is {value}, must be above 0", f"--{option}")


def from_0_to_1(value: float, option: str) -> None:
    """Refuse a value outside of [0, 1].

    Args:
        value: The value to check.
        option: The option's name on the command line, without dashes.

    Raises:
        PipaError: The value is below 0 or above 1, or NaN.
    """
    if not 0 <= value <= 1:
        raise PipaError(f"is {value}, must be from 0 to 1", f"--{option}")


class Interrupted(Exception):
    """A signal ended a run; the command line prints it as one line and exits with 128 + signal.

    Args:
        number: The number of the signal.
        said: What was kept and how to go on, without a full stop at the end.
    """

    def __init__(self, number: int, said: str) -> None:
        self.number, self.said = number, said
        super().__init__(f"{said}.")

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """Travel from another process to the main one whole."""
        return type(self), (self.number, self.said)
