"""The command line: one function per sub-command. Parsing and printing only.

Exit code 0: done. 1: finished, with faults listed. 2: refused (usage or bad input), one line on
stderr that says what and what to do.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipa.errors import PipaError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from pipa.models.segmenter import Segmenter

HELP = """\
pipa: adapt a segmenter from labelled images of one domain to unlabelled images of another

  pipa demo                     see it work on the built-in benchmark, within minutes on a CPU
  pipa train [CONFIG...]        train or adapt; --data.source A --data.target B --method.name M
  pipa ablate CONFIG            vary options over seeds; table with spread and differences
  pipa compare RUN RUN...       the same table of runs that are finished
  pipa eval MODEL DATA          mean IoU on labelled images
  pipa predict MODEL INPUT...   label images, folders, videos
  pipa data check DATA          read a whole data set and list what is wrong with it
  pipa data stats DATA          its classes: share of pixels, probability of being sampled
  pipa data streets DIR         write the built-in benchmark as folders of images
  pipa convert CKPT OUT         turn a checkpoint of PiPa, HRDA, DAFormer or MIC into a model
  pipa export MODEL OUT         write ONNX, compared with the original
  pipa doctor                   what this machine and installation offer

`pipa COMMAND --help` explains each. A MODEL is a run's folder, its `model/`, a checkpoint, or .pth.
A DATA is [FORMAT[/SPLIT]:]PATH; `pipa data --help` lists the formats.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one sub-command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = run(given)
    except PipaError as error:
        print(f"pipa: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("pipa: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def run(given: list[str]) -> int:
    """Find the sub-command and call it with the rest."""
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if given[0] == "--version":
        from pipa import __version__

        print(__version__)
        return 0
    words = 2 if given[0] == "data" else 1  # `pipa data check`
    name, rest = " ".join(given[:words]), given[words:]
    if name in ("data", "data -h", "data --help"):
        print(data_help(), end="")
        return 0
    if name not in COMMANDS:
        raise PipaError(f"no such command: {name}", remedy="`pipa --help` lists them.")
    return COMMANDS[name](rest)


def data_help() -> str:
    """The commands on data, and the formats that a DATA may have."""
    from pipa.data.data_sets import formats

    commands = [line for line in HELP.splitlines() if line.startswith("  pipa data ")]
    rows = [f"  {name:12} {layout}" for name, layout in formats().items()]
    about = "A DATA is [FORMAT[/SPLIT]:]PATH; the default format is folder. The formats:"
    own = "Instead of a FORMAT, my_module.my_function may list the files: see pipa.data.data_sets."
    return "\n".join([*commands, "", about, "", *rows, "", own]) + "\n"


def new_parser(command: str, about: str) -> "ArgumentParser":
    """A parser whose refusals are one line."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            if isinstance(ex, PipaError):
                raise ex
            line = " ".join(str(message).split())
            raise PipaError(line, command, f"`pipa {command} --help` lists the options.")

    return Parser(prog=f"pipa {command}", description=about, allow_abbrev=False)


def train_command(given: list[str]) -> int:
    """`pipa train [CONFIG...] [--data FORMAT] [--SECTION.NAME VALUE]...`."""
    from pipa.run.options import read_experiment
    from pipa.run.train import train

    about = "Train or adapt a segmenter. Every option can stand in CONFIG, a YAML file."
    run = train(**read_experiment(new_parser("train", about), given))
    if run.result is not None:
        print_scores(run.result)
    print(f"wrote {run.out}; try: pipa predict {run.out} IMAGE")
    return 0


def ablate_command(given: list[str]) -> int:
    """`pipa ablate CONFIG --vary pixel,patch --seeds 0,1,2`."""
    from pipa.run.ablate import ablate
    from pipa.run.grid import read_grid

    about = (
        "Train every combination of some options with several seeds. Options as in `pipa train`."
    )
    grid = read_grid(new_parser("ablate", about), given)
    comparison, faults = ablate(grid, tell=lambda line: print(line, flush=True))
    show(comparison.table())
    print(f"wrote {grid.out / 'table.md'}, table.json, table.svg")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def compare_command(given: list[str]) -> int:
    """`pipa compare RUN RUN...`."""
    parser = new_parser("compare", "Table of finished runs; those that differ in seed are one row.")
    parser.add_argument("runs", nargs="+", type=Path, help="runs, or folders of runs")
    about = "rows that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    parser.add_argument(
        "--out", type=Path | None, help="folder for table.md, table.json, table.svg"
    )
    options = parser.parse_args(given)

    from pipa.evaluate.compare import compare
    from pipa.evaluate.runs import find_rows
    from pipa.run.grid import comma_separated

    comparison = compare(find_rows(options.runs), comma_separated(options.against))
    show(comparison.table())
    if options.out:
        print("wrote", *comparison.write(options.out))
    return 0


def eval_command(given: list[str]) -> int:
    """`pipa eval MODEL DATA`."""
    parser = new_parser("eval", "Mean IoU of a model on labelled images.")
    add_model(parser)
    parser.add_argument("data", type=str, help="[FORMAT:]PATH of labelled images")
    parser.add_argument("--classes", type=str | None, help="classes.yaml; default: the data's own")
    about = "[height,width] to fit images and labels into first, as in data.target_resize"
    parser.add_argument("--resize", type=tuple[int, int] | None, help=about)
    parser.add_argument("--out", type=Path | None, help="write the scores here, as JSON")
    options = parser.parse_args(given)

    from pipa.evaluate.evaluate import evaluate

    model = load_model(options)
    result = evaluate(model, options.data, classes=options.classes, resize=options.resize)
    print_scores(result)
    if options.out:
        result.write(options.out)
    return 0


def predict_command(given: list[str]) -> int:
    """`pipa predict MODEL INPUT...`."""
    parser = new_parser("predict", "Label images, folders of images, globs or videos.")
    add_model(parser)
    parser.add_argument("inputs", nargs="+", help="files, folders, globs")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--scale", type=float, default=1.0, help="resize the input by this first")
    options = parser.parse_args(given)

    from pipa.deploy.predict import predict

    model = load_model(options)
    for _, outputs in predict(model, options.inputs, options.out, scale=options.scale):
        print(*outputs)
    return 0


def add_model(parser: "ArgumentParser") -> None:
    """The arguments that say which network."""
    parser.add_argument("model", type=Path, help="a run's folder, a model folder, .ckpt or .pth")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add_weights(parser)


def load_model(options: Any) -> "Segmenter":
    """The network that the arguments name, on the device that they name."""
    import torch

    from pipa.models.saved import load_segmenter

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device != "cpu" and not getattr(torch, device).is_available():
        raise PipaError(f"there is no {device} here", "--device", "`pipa doctor` lists devices.")
    return load_segmenter(options.model, weights=options.weights).to(device)


def add_weights(parser: "ArgumentParser") -> None:
    """The argument that says which network of a checkpoint."""
    parser.add_argument("--weights", choices=("student", "teacher"), default="student")


def check_command(given: list[str]) -> int:
    """`pipa data check DATA`."""
    parser = new_parser("data check", "Read a whole data set; list every fault.")
    parser.add_argument("data", type=str, help="[FORMAT:]PATH")
    parser.add_argument("--classes", type=str | None, help="classes.yaml, or names with commas")
    parser.add_argument("--sheet", type=Path | None, help="write images beside labels to this PNG")
    options = parser.parse_args(given)

    from pipa.data.check import check

    report = check(options.data, classes=options.classes, sheet=options.sheet)
    if report.labels is None:
        print(f"{options.data}: {report.images} images, no labels, {len(report.faults)} faults")
    else:
        show(report.table)
    for fault in report.faults:
        print(fault)
    return 1 if report.faults else 0


def stats_command(given: list[str]) -> int:
    """`pipa data stats DATA`."""
    parser = new_parser("data stats", "Share of pixels and sampling probability of each class.")
    parser.add_argument("data", type=str, help="[FORMAT:]PATH")
    parser.add_argument("--classes", type=str | None, help="classes.yaml, or names with commas")
    parser.add_argument("--temperature", type=float, default=0.01, help="of rare class sampling")
    options = parser.parse_args(given)

    from pipa.data.check import stats

    show(stats(options.data, classes=options.classes, temperature=options.temperature))
    return 0


def streets_command(given: list[str]) -> int:
    """`pipa data streets DIR`."""
    parser = new_parser("data streets", "Write the built-in benchmark as folders of images.")
    parser.add_argument("folder", type=Path, help="folder to make")

    from pipa.streets import write_streets

    parser.add_function_arguments(write_streets, skip={"folder", "progress"})
    options = parser.parse_args(given).as_dict()
    write_streets(**options)
    print(f"wrote {options['folder']}")
    return 0


def convert_command(given: list[str]) -> int:
    """`pipa convert CKPT OUT`."""
    parser = new_parser("convert", "Turn a checkpoint of PiPa, HRDA, DAFormer or MIC into a model.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="folder to make")
    add_weights(parser)
    options = parser.parse_args(given)

    from pipa.models.saved import convert

    print(convert(options.checkpoint, options.out, weights=options.weights))
    return 0


def export_command(given: list[str]) -> int:
    """`pipa export MODEL OUT`."""
    parser = new_parser("export", "Write ONNX and compare its output with the model's.")
    add_model(parser)
    parser.add_argument("out", type=Path, help="the .onnx file to write")
    parser.add_argument("--size", type=tuple[int, int], default=(512, 512), help="[height,width]")
    options = parser.parse_args(given)

    from pipa.deploy.export import export

    model = load_model(options).cpu()
    difference = export(model, options.out, options.size)
    print(f"wrote {options.out}; largest difference to the original {difference:.1e}")
    return 0


def doctor_command(given: list[str]) -> int:
    """`pipa doctor`."""
    new_parser("doctor", "What this machine and installation offer.").parse_args(given)
    from pipa.doctor import diagnose

    for what, value, state in diagnose():
        print(f"{what:28} {value}{'' if state == 'ok' else f'   <- {state}'}")
    return 0


def demo_command(given: list[str]) -> int:
    """`pipa demo`."""
    parser = new_parser("demo", "Source-only, a control and PiPa on the built-in benchmark.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500, help="of each of the three trainings")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the report")
    options = parser.parse_args(given)

    from pipa.run.demo import demo

    print("Three trainings side by side; some five minutes on two cores.", flush=True)
    show(demo(options.out, seed=options.seed, steps=options.steps))
    print(f"wrote {options.out / 'report.html'} and {options.out / 'results.json'}")
    return 0


def print_scores(result: Any) -> None:
    """The table of one result."""
    from pipa.evaluate.scores import score_table

    show(score_table(result))


def show(table: Any) -> None:
    """Print a rich table."""
    from rich.console import Console

    Console().print(table)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train_command,
    "ablate": ablate_command,
    "compare": compare_command,
    "eval": eval_command,
    "predict": predict_command,
    "data check": check_command,
    "data stats": stats_command,
    "data streets": streets_command,
    "convert": convert_command,
    "export": export_command,
    "doctor": doctor_command,
    "demo": demo_command,
}
