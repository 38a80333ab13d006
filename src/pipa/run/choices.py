"""What `pipa adapt` chooses for this machine and these data, and why.

A recipe is one of the experiment files that are installed with pipa. All that is chosen here is
which one, and where the machine or the data ask for another network, crop, batch or length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipa.data.crops import Size, height_and_width
from pipa.errors import PipaError, at_least
from pipa.files.installed import experiment_file, experiment_files
from pipa.run.machine import Machine, hardware
from pipa.run.options import StudentOptions, sections

SCRATCH, LIGHT, LARGE = "own_data_small", "own_data_light", "own_data"
"""The recipes: from random weights; a light pretrained network on a CPU; a large one on a GPU."""
STRIDE = 32
"""Sides of a crop that is not the recipe's are multiples of the network's coarsest stride."""
PASSES = 200
"""A pretrained network sees each image of the larger data set at most this often."""
APART = 3
"""Images of source and target whose sides differ so many times hardly show things alike."""
FAR = 5
"""An image with sides this many times those of the crop is shown in parts that say little."""


@dataclass(frozen=True)
class DataFacts:
    """What the data sets are like."""

    sizes: tuple[Size, Size]
    """Smallest and largest height and width, of source and target together; but for `tiny`."""
    images: int
    """Images of the larger of the two."""
    tiny: Size | None = None
    """Smallest height and width with those few images that are smaller still; None: no others."""
    typical: tuple[Size, Size] | None = None
    """Size of a middle image of the source, and of the target before `resize`."""


@dataclass(frozen=True)
class Asked:
    """The choices that the user made; None: choose.

    Args:
        recipe: Name of an experiment file, or a path.
        network: HEAD_BACKBONE, as `create_segmenter` has it.
        pretrained: Weights of the backbone: a name on the Hub, a folder, or "none".
        crop: Height and width of the crops, or one number for both.
        batch_size: Source images, and target images, per step.
        steps: Length of the training.
        resize: Scale target images to fit into this height and width.
    """

    recipe: str | None = None
    network: str | None = None
    pretrained: str | None = None
    crop: int | tuple[int, int] | None = None
    batch_size: int | None = None
    steps: int | None = None
    resize: Size | None = None


@dataclass(frozen=True)
class Choices:
    """All choices, in the words of `pipa train`, and a reason for each."""

    recipe: str
    options: Mapping[str, Any]
    """Options by their dotted names, where they may differ from the recipe's."""
    reasons: Mapping[str, str]
    """Sentences by subject."""

    @cached_property
    def words(self) -> list[str]:
        """The arguments of `pipa train`, without data, folder and seed."""
        return [self.recipe, *(f"--{name}={value}" for name, value in self.options.items())]


def choose(machine: Machine, seen: DataFacts, asked: Asked) -> Choices:
    """Choose recipe, network, crop, batch and length.

    Args:
        machine: What there is to train on.
        seen: What the data are like.
        asked: What is not to be chosen.

    Raises:
        PipaError: The recipe does not exist, or a number is too small.
    """
    student, why_network = choose_network(machine, asked)
    recipe = asked.recipe or recipe_for(machine, student)
    plan = read_recipe(recipe)
    crop, batch, pad, why_crop = choose_crop(plan["data"], seen, asked)
    steps, why_steps = choose_steps(plan, seen, asked, scratch=student.weights is None, batch=batch)
    options = {
        "student.name": student.name,
        "student.pretrained": student.weights or "none",
        "data.crop": list(crop),
        "data.batch_size": batch,
        "data.pad": str(pad).lower(),
        **schedule(plan, steps),
        **hardware(machine),
    }
    method = plan["method"].get("name", "pipa")
    terms = plan["method"].get("terms") or []
    losses = f" with the losses {', '.join(terms)}" if terms else ""
    why_recipe = f"{recipe}: {method}{losses}; `pipa train {recipe}` leaves every choice to you"
    start = options.get("method.start", plan["method"].get("start", 0))
    length = f"{steps} steps, the first {start} on the source alone: {why_steps}"
    reasons = {"recipe": why_recipe, "network": why_network, "crop": why_crop, "length": length}
    if asked.resize is not None:
        options["data.target_resize"] = list(asked.resize)
        reasons["resize"] = (
            f"target images, into {by(asked.resize)}, and so will the model when it predicts"
        )
    return Choices(recipe, options, reasons)


def read_recipe(recipe: str) -> dict[str, Any]:
    """Read an experiment file of pipa, or of the user.

    Raises:
        PipaError: There is none, or it lacks what is to be adjusted.
    """
    names = ", ".join(name for name in experiment_files() if "/" not in name)
    try:
        plan = yaml.safe_load(Path(experiment_file(recipe)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        plan = None
    parts = plan if isinstance(plan, dict) else {}
    found = {name: parts.get(name) or {} for name in ("data", "trainer", "method", "student")}
    complete = all(isinstance(section, dict) for section in found.values())
    if not (complete and found["data"].get("crop") and found["trainer"].get("max_steps")):
        problem = "is no experiment file with data.crop and trainer.max_steps"
        raise PipaError(problem, f"--recipe {recipe}", f"Those of pipa: {names}.")
    return parts | found


def choose_network(machine: Machine, asked: Asked) -> tuple[StudentOptions, str]:
    """Choose the network and its weights; return them, and why.

    Raises:
        PipaError: The recipe has an option that does not exist, or the weights that were asked for
            cannot be had.
    """
    if asked.network is not None or asked.recipe is not None:
        section = read_recipe(asked.recipe)["student"] if asked.recipe is not None else {}
        try:
            student = StudentOptions(
                **(section if asked.network is None else {"name": asked.network})
            )
        except TypeError as error:
            raise PipaError(f"student: {error}", f"--recipe {asked.recipe}") from error
        student.pretrained = asked.pretrained or student.pretrained
        return student, f"{student.name}, {start_of(student)}: as asked"
    student = StudentOptions(**read_recipe(LARGE if machine.is_large else LIGHT)["student"])
    if asked.pretrained is not None:
        student.pretrained = asked.pretrained
    if student.weights is None or obtainable(student.weights):
        return student, f"{student.name}, {start_of(student)}: right for {machine}"
    if asked.pretrained is not None:
        remedy = "Give a folder with config.json and weights, a name on the Hub, or none."
        raise PipaError("cannot be fetched", f"--pretrained {asked.pretrained}", remedy)
    missing, student = student.weights, StudentOptions(**read_recipe(SCRATCH)["student"])
    why = f"{missing} cannot be fetched (--pretrained FOLDER takes a copy)"
    return student, f"{student.name}, {start_of(student)}: {why}"


def start_of(student: StudentOptions) -> str:
    """Say with which weights a network starts."""
    if student.weights is None:
        return "from random weights"
    licence = " (licensed for research only)" if student.weights.startswith("nvidia/") else ""
    return f"from {student.weights}{licence}"


def obtainable(weights: str) -> bool:
    """Whether weights are a folder, in the cache, or can be fetched within seconds."""
    from huggingface_hub import model_info, try_to_load_from_cache

    if Path(weights).exists():
        return True
    try:
        if isinstance(try_to_load_from_cache(weights, "config.json"), str):
            return True
        model_info(weights, timeout=5)
    except Exception:  # noqa: BLE001  # whatever the reason, a name that is none included
        return False
    return True


def recipe_for(machine: Machine, student: StudentOptions) -> str:
    """Choose the experiment file for a machine and a network."""
    if student.weights is None:
        return SCRATCH
    return LARGE if machine.is_large else LIGHT


def choose_crop(
    plan: Mapping[str, Any], seen: DataFacts, asked: Asked
) -> tuple[Size, int, bool, str]:
    """Choose the crop and the batch size.

    Returns:
        Height and width, images per batch, whether images must be filled up, and why.
    """
    batch = plan.get("batch_size", 2) if asked.batch_size is None else asked.batch_size
    at_least(1, batch, "batch-size")
    smallest, largest = seen.sizes
    wanted = height_and_width(plan["crop"] if asked.crop is None else asked.crop)
    at_least(1, min(wanted), "crop")
    fits = all(side <= limit for side, limit in zip(wanted, smallest, strict=True))
    crop, why = wanted, "the recipe's size"
    if asked.crop is not None:
        why = "as asked"
    elif not fits:
        whole = (limit // STRIDE * STRIDE for limit in smallest)
        crop = tuple(min(w, max(STRIDE, s)) for w, s in zip(wanted, whole, strict=True))  # type: ignore[assignment]
        why = f"so that it fits into the smallest image, {by(smallest)}"
    if asked.crop is None and any(s >= FAR * c for s, c in zip(largest, crop, strict=True)):
        remedy = "reduce them (--resize does the target's), or give a larger --crop"
        why = f"small beside images of {by(largest)}: {remedy}"
    least = seen.tiny or smallest
    pad = any(side > limit for side, limit in zip(crop, least, strict=True))
    if pad:
        why += f"; smaller images, down to {by(least)}, are filled up"
    if asked.resize is None:
        why += apart(seen)
    return crop, batch, pad, f"{by(crop)}, {batch} + {batch} images per step: {why}"


def apart(seen: DataFacts) -> str:
    """Hint at `--resize` where target images are far larger or smaller than the source's."""
    if seen.typical is None:
        return ""
    source, target = seen.typical
    larger = ((target[0] * target[1]) / (source[0] * source[1])) ** 0.5
    if 1 / APART < larger < APART:
        return ""
    return (
        f"; the source has images of {by(source)}, the target of {by(target)}: if their things "
        f"differ as much in size, --resize {by(source)} scales the target's"
    )


def choose_steps(
    plan: Mapping[str, Any], seen: DataFacts, asked: Asked, *, scratch: bool, batch: int
) -> tuple[int, str]:
    """Choose the length; return it, and why."""
    usual = int(plan["trainer"]["max_steps"])
    if asked.steps is not None:
        at_least(2, asked.steps, "steps")
        return asked.steps, "as asked"
    enough = max(usual // 4, -(-PASSES * seen.images // batch))
    if scratch or enough >= usual:
        return usual, "the recipe's length"
    return (
        enough,
        f"{PASSES} passes over {seen.images} images, or a quarter of the recipe's {usual}",
    )


def schedule(plan: Mapping[str, Any], steps: int) -> dict[str, int]:
    """Say when each part of the training begins: where it did, as a share of the length."""
    usual = int(plan["trainer"]["max_steps"])
    found = {"trainer.max_steps": steps}
    for section, name, value in sections(plan):
        if name in ("start", "warm_up") and steps != usual:
            scaled = max(1, round(value * steps / usual)) if value else 0
            found[f"{section}.{name}"] = scaled if name == "start" else min(value, scaled)
    return found


def by(size: tuple[int, int]) -> str:
    """Write a size, height first."""
    return f"{size[0]}x{size[1]}"
