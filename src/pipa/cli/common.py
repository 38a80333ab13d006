"""What the sub-commands share: a parser, the arguments that name a model, tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipa.errors import PipaError
from pipa.files.odd_names import read_odd_names

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from pipa.models.segmenter import Segmenter


def new_parser(command: str, about: str) -> "ArgumentParser":
    """A parser whose refusals are one line."""
    from jsonargparse import ArgumentParser

    read_odd_names()

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            if isinstance(ex, PipaError):
                raise ex
            raise PipaError(message, command, f"`pipa {command} --help` lists the options.")

    return Parser(prog=f"pipa {command}", description=about, allow_abbrev=False)


def add_model(parser: "ArgumentParser") -> None:
    """The arguments that say which network."""
    parser.add_argument(
        "model",
        type=Path,
        help="a run's folder, a model folder, .ckpt, .pth, .onnx, or user/model on the Hub",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add_weights(parser)


def load_model(options: Any) -> "Segmenter":
    """The network that the arguments name, on the device that they name."""
    from pipa.models.device import pick_device
    from pipa.models.saved import load_segmenter

    device = pick_device(options.device)
    return load_segmenter(options.model, weights=options.weights).to(device)


def add_weights(parser: "ArgumentParser") -> None:
    """The argument that says which network of a checkpoint."""
    parser.add_argument("--weights", choices=("student", "teacher"), default="student")


def print_scores(result: Any) -> None:
    """The table of one result."""
    from pipa.evaluation.scores import score_table

    show(score_table(result))


def show(table: Any) -> None:
    """Print a rich table."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)  # names of classes and paths are data
