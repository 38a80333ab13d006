"""Short forms of the command line, before the parser sees them."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipa.errors import PipaError
from pipa.files.installed import experiment_file


def spelled_out(given: list[str]) -> list[str]:
    """Expand the short forms: bare CONFIGs first, `--data FORMAT`, `--resume RUN`, bare switches.

    A later file overrides an earlier one.

    Raises:
        PipaError: An experiment file, or that of the run to resume, does not exist.
    """
    options = next((i for i, word in enumerate(given) if word.startswith("-")), len(given))
    files = [experiment_file(name) for name in given[:options]]
    for file in files:
        if not Path(file).exists():
            remedy = "`pipa configs` lists those that pipa brings."
            raise PipaError("there is no such experiment file", file, remedy)
    words = [*(part for file in files for part in ("--config", file)), *given[options:]]
    words = with_sizes(words)
    words = ["--data.format" if word == "--data" else word for word in words]
    words = [f"{word}=true" if bare(words, i) else word for i, word in enumerate(words)]
    if "--resume" not in words:
        return words
    index = words.index("--resume")
    run = words[index + 1 : index + 2]
    if not run or run[0].startswith("-"):  # the rest of the command describes the run
        return [*words[:index], "--resume=true", *words[index + 1 :]]
    config = Path(run[0]) / "config.yaml"
    if not config.is_file():
        raise PipaError("there is no config.yaml", run[0], "Give the folder of a run to --resume.")
    kept = [*words[:index], *words[index + 2 :]]
    return ["--config", str(config), *kept, f"--out={run[0]}", "--resume=true"]


def bare(words: list[str], index: int) -> bool:
    """Whether a word is a switch without a value."""
    alone = all(word.startswith("-") for word in words[index + 1 : index + 2])
    return alone and words[index] in ("--compile", "--checkpoint")


def with_sizes(words: Sequence[str]) -> list[str]:
    """Write a size as a list: `96x128`, height first, after `--...crop`, `--...resize`, `--size`.

    Raises:
        PipaError: What stands there is no size.
    """
    found = []
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if option.endswith(("crop", "resize", "--size")) and value:
            sides = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
            if sides and (sides[2] or not option.endswith("crop")):
                word = f"{option}=" * bool(equals) + f"[{sides[1]},{sides[2] or sides[1]}]"
            elif re.search("[A-Za-z]", value) and value not in ("null", "None"):
                remedy = "Give one side, or height and width: 512 or 384x512."
                raise PipaError(f"{value} is no size", option, remedy)
        found.append(word)
    return found
