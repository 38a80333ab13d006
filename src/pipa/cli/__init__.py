"""The command line: a table of sub-commands, each a function. Parsing and printing only.

Exit code 0: done. 1: finished, with faults listed. 2: refused (usage or bad input), one line on
stderr that says what and what to do.
"""

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipa.errors import Interrupted, PipaError

HELP = """\
pipa: adapt a segmenter from labelled images of one domain to unlabelled images of another

  pipa adapt SOURCE TARGET      from two folders to a model, and whether adaptation helped
  pipa demo                     see it work on the built-in benchmark, within minutes on a CPU
  pipa train [CONFIG...]        the same with every choice yours; --data.source A --data.target B
  pipa ablate CONFIG            vary options over seeds; table with spread and differences
  pipa compare RUN RUN...       the same table of runs that are finished
  pipa report RUN...            one HTML page: scores, curves, pictures before and after, settings
  pipa judge RUN...             rank models without labels: did adaptation help?
  pipa eval MODEL DATA          mean IoU on labelled images
  pipa predict MODEL INPUT...   label images, folders, videos
  pipa web MODEL [MODEL2]       a page in the browser: drop images and videos, compare two models
  pipa data check DATA          read a whole data set and list what is wrong with it
  pipa data stats DATA          its classes: share of pixels, probability of being sampled
  pipa data streets DIR         write the built-in benchmark as folders of images
  pipa data nuclei [DIR]        write a small example of real images
  pipa convert CKPT OUT         turn a checkpoint of PiPa, HRDA, DAFormer or MIC into a model
  pipa export MODEL OUT         write ONNX, compared with the original
  pipa push USER/MODEL RUN...   put a model with its card on the Hugging Face Hub
  pipa configs [NAME]           list the experiment files that pipa brings, or print one
  pipa doctor                   what this machine and installation offer

`pipa COMMAND --help` explains each. A MODEL is a run's folder, its `model/`, a checkpoint, .pth,
.onnx, or USER/MODEL on the Hub.
A DATA is [FORMAT[/SPLIT]:]PATH; `pipa data --help` lists the formats.
"""


COMMANDS = {
    "adapt": ("training", "adapt_command"),
    "train": ("training", "train_command"),
    "ablate": ("training", "ablate_command"),
    "compare": ("training", "compare_command"),
    "demo": ("training", "demo_command"),
    "report": ("report", "report_command"),
    "judge": ("models", "judge_command"),
    "eval": ("models", "eval_command"),
    "predict": ("models", "predict_command"),
    "convert": ("models", "convert_command"),
    "export": ("models", "export_command"),
    "web": ("web", "web_command"),
    "push": ("models", "push_command"),
    "data check": ("data", "check_command"),
    "data stats": ("data", "stats_command"),
    "data streets": ("data", "streets_command"),
    "data nuclei": ("installed", "nuclei_command"),
    "configs": ("installed", "configs_command"),
    "doctor": ("data", "doctor_command"),
}
"""Module and function of each sub-command."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one sub-command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it wants to write to a home folder
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text at all
            stream.reconfigure(errors="backslashreplace")
    try:
        code = exit_code(given)
        sys.stdout.flush()
    except BrokenPipeError:  # `pipa predict ... | head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def exit_code(given: list[str]) -> int:
    """Run one sub-command; print an error of the user's as one line."""
    try:
        return run(given)
    except PipaError as error:
        print(f"pipa: {error}", file=sys.stderr)
        return 2
    except Interrupted as end:
        print(f"pipa: {end}", file=sys.stderr)
        return 128 + end.number
    except KeyboardInterrupt:
        print("pipa: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not (line := of_the_machine(error)):
            raise
        print(f"pipa: {line}", file=sys.stderr)
        return 2


def of_the_machine(error: Exception) -> str:
    """What an error says if memory or the file system is its cause; empty for any other."""
    if isinstance(error, OSError) and error.filename is not None:  # a name too long, no rights
        where = os.fsdecode(error.filename)
        return str(PipaError(f"cannot be read or written ({error.strerror})", where))
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"a name is not valid UTF-8, which this needs: {error.object[:200]}"
    if out_of_memory(error):
        return "there is not enough memory for this. Take smaller images."
    return ""


def out_of_memory(error: Exception) -> bool:
    """Whether an error of Python, of OpenCV, of torch on the CPU, or of torch on a GPU says so."""
    words = ("can't allocate memory", "out of memory", "Insufficient memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


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
    module, function = COMMANDS[name]
    return int(getattr(importlib.import_module(f"pipa.cli.{module}"), function)(rest))


def data_help() -> str:
    """The commands on data, and the formats that a DATA may have."""
    from pipa.data.data_sets import formats

    commands = [line for line in HELP.splitlines() if line.startswith("  pipa data ")]
    rows = [f"  {name:12} {layout}" for name, layout in formats().items()]
    about = "A DATA is [FORMAT[/SPLIT]:]PATH; the default format is folder. The formats:"
    own = "Instead of a FORMAT, my_module.my_function may list the files: see pipa.data.data_sets."
    return "\n".join([*commands, "", about, "", *rows, "", own]) + "\n"
