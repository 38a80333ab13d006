"""What `pipa ablate` is asked for: the rows of a table, each with all of its options, and seeds."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from pipa.errors import PipaError
from pipa.evaluation.runs import comma_separated, refuse_other_images, scored_on
from pipa.files.installed import experiment_file
from pipa.files.plain_yaml import read_yaml
from pipa.files.threads import available_cores
from pipa.files.words import spelled_out, with_sizes
from pipa.run.devices import uses_several
from pipa.run.options import (
    SECTIONS,
    add_sections,
    as_text,
    build_sections,
    with_good_files,
)
from pipa.run.recipes import RECIPES, import_term, recipe_named
from pipa.run.train import answer
from pipa.run.until import MOST_SEEDS, Until, read_until
from pipa.uda.terms import TERMS

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

OF_THE_GRID = (
    *("vary", "rows", "seeds", "until", "until_rows", "most_seeds", "jobs", "against"),
    *("out", "seed", "resume", "config"),
)
"""Options that say which runs there are, not what one of them does."""


@dataclass(frozen=True)
class Setting:
    """A row to be: its name, and all of its options as the text of an experiment file."""

    name: str
    text: str

    @property
    def folder(self) -> str:
        """The name, as one of a folder."""
        return re.sub(r"[^\w.+=-]+", "_", self.name)


@dataclass(frozen=True)
class Grid:
    """What `pipa ablate` was asked for."""

    settings: list[Setting]
    seeds: list[int]
    out: Path
    jobs: int
    against: list[str]
    until: Until | None = None
    """None: these seeds and no more."""

    def run_folder(self, setting: Setting, seed: int) -> Path:
        """Return the folder of one run."""
        return self.out / setting.folder / f"seed{seed}"


def read_grid(parser: "ArgumentParser", given: Sequence[str]) -> Grid:
    """Parse `[CONFIG] --vary A,B --seeds 0,1,2 [--SECTION.NAME VALUE]...`; refuse bad rows now.

    Raises:
        PipaError: An option of a row is not one, there is nothing to score on, or two rows are
            scored on other images.
    """
    refuse_strays(given)
    add_sections(parser)
    about = (
        "terms (pixel), switches (data.pad) or OPTION=VALUE:VALUE, with commas: every combination"
        " is a row"
    )
    parser.add_argument("--vary", type=str, default="", help=about)
    parser.add_argument("--rows", type=Path | None, help="YAML: ROW: {OPTION: VALUE, ...}")
    parser.add_argument("--seeds", type=str, default="0,1,2", help="seeds of each row")
    about = "add seeds until each difference is known to plus or minus this many points"
    parser.add_argument("--until", type=float | None, help=f"{about} (95 percent interval)")
    about = "rows whose differences --until looks at, with commas; default: all"
    parser.add_argument("--until-rows", type=str, default="", help=about)
    about = f"the most seeds that --until may come to; default: {MOST_SEEDS}"
    parser.add_argument("--most-seeds", type=int | None, help=about)
    about = "runs at the same time; default: one for each GPU, without a GPU one for each core"
    parser.add_argument("--jobs", type=int | None, help=about)
    about = "rows that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    words = with_good_files(spelled_out(list(given)))
    base = parser.parse_args(words)
    if base.jobs is not None and base.jobs < 1:
        raise PipaError(f"is {base.jobs}, must be at least 1", "--jobs")
    if (base.out / "checkpoints").exists():
        raise PipaError("is a run, not a folder of runs", base.out, "Give another --out.")
    settings = []
    for name, overrides in combinations(base):
        try:
            config = parser.parse_args([*words, *with_sizes(overrides)])
            refuse_impossible_row(build_sections(parser, config))
        except PipaError as error:
            where = f"row {name}" + ("" if error.where is None else f": {error.where}")
            raise PipaError(error.problem, where, error.remedy) from error
        for option in OF_THE_GRID:
            config.pop(option, None)
        settings.append(Setting(name, f"# {name}\n{as_text(parser, config)}"))
    refuse_alike(settings)
    refuse_other_images({s.name: scored_on(yaml.safe_load(s.text)) for s in settings})
    names = [setting.name for setting in settings]
    against = rows_among(names, base.against, "--against")
    seeds = whole_numbers(base.seeds)
    watched = rows_among(names, base.until_rows, "--until-rows")
    until = read_until(base, names, against or names[:1], watched, len(seeds))
    jobs = base.jobs or default_jobs(base.trainer.accelerator, base.trainer.devices)
    return Grid(settings, seeds, base.out, jobs, against, until)


def rows_among(names: Sequence[str], asked: str, option: str) -> list[str]:
    """Return the rows that an option names, with commas.

    Raises:
        PipaError: There is no such row.
    """
    found = comma_separated(asked)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise PipaError(
            f"no row is called {', '.join(unknown)}", option, f"Rows: {', '.join(names)}."
        )
    return found


def default_jobs(accelerator: str, devices: Any = "auto") -> int:
    """Return how many runs go side by side: one for each GPU, without a GPU one for each core.

    Args:
        accelerator: That of Lightning's trainer.
        devices: The same; runs that take several devices go one after the other.
    """
    if str(devices or "auto") != "auto" and uses_several({"devices": devices}):
        return 1
    gpus = 0 if accelerator == "cpu" else torch.accelerator.device_count()
    return gpus or available_cores()


def refuse_strays(given: Sequence[str]) -> None:
    """Check for options that would be passed over.

    Raises:
        PipaError: One is for a single run, or stands twice.
    """
    names = [word.partition("=")[0] for word in given]
    for stray in ("--seed", "--resume"):
        if stray in names:
            raise PipaError("is for one run", stray, "Here it is --seeds; what is done stays done.")
    if names.count("--vary") > 1:
        raise PipaError("is given twice", "--vary", "Give it once, with commas.")


def refuse_impossible_row(sections: dict[str, Any]) -> None:
    """Check what would stop a row's run, or leave it without scores.

    Raises:
        PipaError: There is nothing to score on, or no target.
    """
    data, trainer = sections["data"], sections["trainer"]
    if data.validation is None:
        remedy = "Give labelled images of the target domain."
        raise PipaError("an ablation needs images to score on", "--data.validation", remedy)
    if trainer.get("fast_dev_run") or trainer.get("limit_val_batches") == 0:
        problem = "an ablation needs scores, and a fast_dev_run or no validation gives none"
        raise PipaError(problem, "--trainer")
    answer(data, sections["method"], sections["terms"], trainer["max_steps"])


def refuse_alike(settings: Sequence[Setting]) -> None:
    """Check that every row has a name, and a folder, of its own.

    Raises:
        PipaError: Two have the same, or one has none.
    """
    folders = Counter(setting.folder.casefold() for setting in settings)
    for setting in settings:
        if not setting.folder.strip("._"):
            raise PipaError(f"{setting.name!r} is no name for a folder", "--rows", "Name it anew.")
        if folders[setting.folder.casefold()] > 1:
            raise PipaError(f"two rows are called {setting.name}, or nearly so", "--vary, --rows")


def combinations(base: Any) -> list[tuple[str, list[str]]]:
    """Name and further arguments of each row.

    Raises:
        PipaError: `--vary` or the file of rows cannot be understood.
    """
    named: list[tuple[str, list[str]]] = read_rows(base.rows) if base.rows else [("", [])]
    axes = [choices(part, base) for part in comma_separated(base.vary)]
    if not axes and not base.rows:
        raise PipaError("nothing varies", "--vary", "Try --vary pixel,patch")
    rows = []
    for (row, overrides), picked in itertools.product(named, itertools.product(*axes)):
        words = [row, *(word for word, _ in picked)]
        name = "+".join(word for word in words if word) or "none"
        arguments = [argument for _, argument in picked if argument]
        rows.append((name, [*overrides, *arguments]))
    return rows


def choices(part: str, base: Any) -> list[tuple[str, str]]:
    """What one part of `--vary` can be: a word for the row's name, and the argument."""
    option, _, values = part.partition("=")
    is_own = "." in option and option.partition(".")[0] not in SECTIONS
    if (option in TERMS or is_own) and not values:
        refuse_in_every_row(option, base.method)
        if is_own:
            import_term(option)
        return [("", ""), (option.rpartition(".")[2], f"--method.terms+={option}")]
    if option in OF_THE_GRID or option not in base or hasattr(base[option], "as_dict"):
        raise PipaError(
            f"no option is called {option}", "--vary", "`pipa ablate --help` lists all."
        )
    if values:
        short = option.rpartition(".")[2] + "="
        return [(f"{short}{value}", f"--{option}={value}") for value in values.split(":")]
    if not isinstance(base[option], bool):
        raise PipaError(
            f"{option} is no switch", "--vary", f"Say its values: {option}={base[option]}:..."
        )
    return [("", f"--{option}=false"), (option.rpartition(".")[2], f"--{option}=true")]


def refuse_in_every_row(term: str, method: Any) -> None:
    """Check that a term can be left out of some rows.

    Raises:
        PipaError: The method, or the further terms of all rows, have it.
    """
    problem = f"{term} is in every row already"
    if term in recipe_named(method.name).terms:
        others = [name for name, recipe in RECIPES.items() if term not in recipe.terms]
        remedy = f"--method.name {method.name} has it; these have not: {', '.join(others)}."
        raise PipaError(problem, "--vary", remedy)
    if term in method.terms:
        rest = ",".join(str(one) for one in method.terms if one != term)
        raise PipaError(problem, "--vary", f'Leave it out: "--method.terms=[{rest}]".')


def read_rows(file: Path) -> list[tuple[str, list[str]]]:
    """Rows of a YAML file on disk or of pipa, each a mapping of options.

    Raises:
        PipaError: It is none.
    """
    remedy = "Each row is a line NAME: {method.terms: [pixel], ...}."
    content = read_yaml(Path(experiment_file(str(file))), remedy)
    rows: dict[Any, Any] = content if isinstance(content, dict) else {}
    if not rows or not all(isinstance(options, dict) for options in rows.values()):
        raise PipaError("is no mapping of rows", file, remedy)
    strays = sorted({str(key) for options in rows.values() for key in options} & {*OF_THE_GRID})
    if strays:
        raise PipaError(f"{strays[0]} is for the whole command, not for a row", file)
    return [
        (str(name), [f"--{key}={as_argument(value)}" for key, value in options.items()])
        for name, options in rows.items()
    ]


def as_argument(value: Any) -> str:
    """As one would type it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def whole_numbers(text: str) -> list[int]:
    """Seeds of `0,1,2`."""
    words = comma_separated(text)
    if not words or not all(word.isdecimal() for word in words):
        raise PipaError(f"{text!r} are no seeds", "--seeds", "Give whole numbers: --seeds 0,1,2")
    return list(dict.fromkeys(int(word) for word in words))
