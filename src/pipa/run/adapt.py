"""`pipa adapt`: from two folders to a model, a verdict and a report, with nothing to choose."""

from argparse import ArgumentError
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import ArgumentParser

from pipa.data.check import Report, check
from pipa.data.crops import Size, height_and_width
from pipa.data.dataset import run_table
from pipa.data.find import find_all, parse
from pipa.data.labels import ClassTable
from pipa.errors import PipaError, at_least
from pipa.files.images import fit_size
from pipa.files.odd_names import read_odd_names
from pipa.run.choices import Asked, DataFacts, by, choose
from pipa.run.ending import Run, write_report_if_possible
from pipa.run.folder import holds_run
from pipa.run.machine import this_machine
from pipa.run.options import read_experiment
from pipa.run.train import train


class Checked(NamedTuple):
    """What `pipa data check` says of each data set, and the classes of the run."""

    table: ClassTable
    source: Report
    target: Report
    validation: Report | None


def adapt(
    source: str | Path,
    target: str | Path,
    *,
    validation: str | Path | None = None,
    out: str | Path | None = None,
    classes: str | None = None,
    recipe: str | None = None,
    network: str | None = None,
    pretrained: str | None = None,
    crop: int | Size | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
    resize: int | Size | None = None,
    seed: int = 0,
    device: str = "auto",
    on_error: Literal["stop", "skip"] = "stop",
    quiet: bool = False,
) -> Run:
    """Adapt a network from labelled images to unlabelled ones; judge whether that helped.

    All files are checked first. What is not given is chosen for this machine and these data, and
    said with its reason. The run's folder holds `model/`, `report.html`, and all that
    `pipa train --resume` and `pipa compare` need.

    Args:
        source: Labelled images, `[FORMAT[/SPLIT]:]PATH`: a folder of `images/`, `labels/` and
            `classes.yaml`, or a data set that `pipa data --help` lists.
        target: Images to adapt to; their labels are never opened.
        validation: Labelled images like the target's, to score on, and to
            decide which model is kept; None: neither.
        out: The run's folder; None: a new one in `runs`.
        classes: The classes: a classes.yaml, or names with commas; None: those of the source.
        recipe: An experiment file; None: one of pipa's.
        network: HEAD_BACKBONE, as `create_segmenter` has it.
        pretrained: Weights of its encoder: a name on the Hub, a folder, or "none".
        crop: Height and width of the crops in pixels, or one number for both.
        batch_size: Source images, and target images, per step.
        steps: Length of the training.
        resize: Scale images of the target, and of `validation`, to fit into this height and width
            first, or into a square, as the model then does when it predicts; None: as they are.
        seed: Decides every draw.
        device: auto, cpu, cuda or mps.
        on_error: "stop" if a file is faulty, or "skip" it.
        quiet: Say nothing, and show no progress bar.

    Returns:
        The run: `model` is the better of the adapted model and the source-only one, `verdict` says
        in plain words which one that is, `result` holds the scores of the adapted model.

    Raises:
        PipaError: A data set is missing or faulty, or an option has an impossible value.

    Examples:
        >>> run = pipa.adapt("synthetic", "photos", steps=4, network="small", quiet=True)
        >>> run.model.predict("photo.jpg").shape  # class ids of an image of 48x64 pixels
        (48, 64)
    """
    folder = Path(out) if out is not None else free_folder([str(source), str(target)])
    if holds_run(folder):
        remedy = f"`pipa train --resume {folder}` goes on with it, or give another --out."
        raise PipaError("holds a run already", folder, remedy)
    tell: Callable[[str], object] = (lambda line: None) if quiet else print
    data = {"source": str(source), "target": str(target)}
    data |= {} if validation is None else {"validation": str(validation)}
    checked = check_all(data, classes, on_error)
    bounds = None if resize is None else height_and_width(resize)
    at_least(1, 1 if bounds is None else min(bounds), "resize")
    asked = Asked(recipe, network, pretrained, crop, batch_size, steps, bounds)
    choices = choose(this_machine(device), seen_in(checked, bounds), asked)
    reasons = {"data": in_words(checked), **choices.reasons}
    for subject, reason in reasons.items():
        tell(f"{subject:9}{reason}")
    given = {f"data.{role}": spec for role, spec in data.items()}
    given |= {"data.on_error": on_error, "out": str(folder), "seed": str(seed)}
    given |= {} if classes is None else {"data.classes": classes}
    words = [f"--{name}={value}" for name, value in given.items()]
    words += ["--trainer.enable_progress_bar=false"] if quiet else []
    run = train(**sections_of([*choices.words, *words]), report=False)
    about = [f"{name}: {reason}" for name, reason in reasons.items()]
    title = f"{data['source']} to {data['target']}"
    write_report_if_possible([run.folder], run.folder, title=title, about=about)
    return run


def check_all(data: dict[str, str], classes: str | None, on_error: str) -> Checked:
    """Check every file of the data sets.

    Raises:
        PipaError: A data set is missing, has no labels where it needs them, or has a faulty file
            and `on_error` is "stop".
    """
    table = run_table(find_all(data["source"], "source", labelled=True), classes)
    reports = {
        role: check(spec, role=role, table=table)  # type: ignore[arg-type]
        for role, spec in data.items()
    }
    for role, found in reports.items():
        spec, remedy = data[role], f"`pipa data check {data[role]}` lists all of them"
        if role != "target" and found.labels is None:
            raise PipaError("has no labels", spec, "Each image needs a PNG in the folder labels.")
        if found.faults and (on_error == "stop" or not found.sizes):
            problem = f"{found.count} faults; the first: {found.faults[0].rstrip('.')}"
            remedy += "; --on-error skip trains without these files." if on_error == "stop" else "."
            raise PipaError(problem, spec, remedy)
    return Checked(table, reports["source"], reports["target"], reports.get("validation"))


def sections_of(words: Sequence[str]) -> dict[str, Any]:
    """Read the arguments of `train` from the words of `pipa train`.

    Raises:
        PipaError: A recipe of the user's has an option that does not exist, or is not possible.
    """
    read_odd_names()
    try:
        return read_experiment(ArgumentParser(exit_on_error=False), list(words))
    except ArgumentError as error:
        if isinstance(error.__cause__, PipaError):
            raise error.__cause__ from error
        raise PipaError(str(error), f"--recipe {words[0]}") from error


def seen_in(checked: Checked, resize: Size | None) -> DataFacts:
    """Return what the choices depend on; of the smallest tenth of the images, only their size."""
    source, target = list(checked.source.sizes.elements()), list(checked.target.sizes.elements())
    resized = [fit_size(size, resize) for size in target]
    every = sorted([*source, *resized], key=prod)
    smallest, tiny = sides(min, every[len(every) // 10 :]), sides(min, every)
    middle = [sorted(sizes, key=prod)[len(sizes) // 2] for sizes in (source, target)]
    return DataFacts(
        (smallest, sides(max, every)),
        max(checked.source.images, checked.target.images),
        tiny if tiny != smallest else None,
        (middle[0], middle[1]),
    )


def sides(choose: Callable[[Iterable[int]], int], sizes: Sequence[Size]) -> Size:
    """Choose a height and a width of these, each on its own."""
    return choose(height for height, _ in sizes), choose(width for _, width in sizes)


def in_words(checked: Checked) -> str:
    """Describe the data sets in a line."""
    labels = checked.source.labels
    assert labels is not None, "the source has labels"
    parts = [
        f"{checked.source.images} labelled images ({sizes_of(checked.source)}), "
        f"{labels.num_classes} classes; {checked.target.images} to adapt to "
        f"({sizes_of(checked.target)})"
    ]
    if checked.validation is not None:
        parts.append(f"{checked.validation.images} to score on")
    faults = sum(one.count for one in checked[1:] if one is not None)
    return f"{'; '.join(parts)}; {faults or 'no'} {'fault' if faults == 1 else 'faults'}"


def sizes_of(found: Report) -> str:
    """Write the smallest and the largest size of a data set's images."""
    return " to ".join(dict.fromkeys(by(size) for size in (min(found.sizes), max(found.sizes))))


def free_folder(specs: Sequence[str]) -> Path:
    """Return a folder in `runs` that does not exist, with a name that says what is adapted."""
    names = []
    for spec in specs:
        kind, _, path = parse(spec)
        place = Path(path).expanduser().resolve()
        names.append(place.name if place.exists() else kind)
    name = "-to-".join(names)
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in count(1))
    return next(folder for folder in folders if not folder.exists())
