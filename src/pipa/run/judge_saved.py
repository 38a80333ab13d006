"""Judging finished models without labels."""

from collections.abc import Sequence
from pathlib import Path

from pipa.data.crops import height_and_width
from pipa.data.dataset import open_labelled
from pipa.data.rare_classes import class_counts
from pipa.data.unlabelled import each_image
from pipa.errors import PipaError, at_least
from pipa.evaluation.evaluate import adopt
from pipa.evaluation.judge import Judgement, Verdict, judge
from pipa.evaluation.runs import reading_data_of, run_data
from pipa.models.device import pick_device
from pipa.models.saved import ADAPTED_FOLDER, SOURCE_ONLY_FOLDER, holds_network, load_segmenter
from pipa.models.segmenter import Segmenter


def judge_saved(
    paths: Sequence[Path],
    *,
    target: str | None = None,
    source: str | None = None,
    classes: str | None = None,
    count: int = 64,
    against: Path | None = None,
) -> tuple[Judgement, list[Verdict]]:
    """Judge finished models; for a run, judge its model and its source-only model.

    Of large photographs parts are judged, as in training (`pipa.data.unlabelled.CROPS`).

    Args:
        paths: Runs, model folders, checkpoints.
        target: Unlabelled images, `[FORMAT[/SPLIT]:]PATH`; None: those of the first run.
        source: Data whose class shares are counted; None: the source of the first run.
        classes: The classes of the source; None: those of the first run, or the data set's own.
        count: Maximum number of target images.
        against: The model with which the others are compared; None: the models of a run are
            compared with its source-only model, further models with the first source-only one.

    Returns:
        The judgement, and the comparisons, the model with the highest score first.

    Raises:
        PipaError: A model or an image cannot be read, the source is unknown or has no class
            of the first model, models have different ones or were trained on images of different
            sizes, or no model is the one in `against`.
    """
    known = run_data(paths[0])
    at_least(1, count, "images")
    own = known.get("format", "folder")
    target_format, source_format = ("folder" if spec else own for spec in (target, source))
    target = known.get("target") if target is None else target
    source = known.get("source") if source is None else source
    for option, value in {"--target": target, "--source": source}.items():
        if value is None:
            raise PipaError(f"{paths[0]} is not a run, so it has no data", option, "Give the data.")
    assert target is not None
    assert source is not None
    skipped: list[PipaError] | None = [] if known.get("on_error") == "skip" else None
    models = dict(saved_models(paths))
    compared = comparisons(list(models), against)
    first = models[str(paths[0])]
    given = known.get("target_resize")  # of models saved without it
    resize = first.resize or (None if given is None else height_and_width(given))
    if any(model.resize not in (None, resize) for model in models.values()):
        raise PipaError("was trained on images of other sizes than the rest", paths[0])
    crop = height_and_width(known.get("crop", first.window))
    classes = classes or known.get("classes")
    with reading_data_of(paths[0]):
        found = each_image(
            target, count, format=target_format, resize=resize, crop=crop, skipped=skipped
        )
        images = list(found)
        labelled, labels = open_labelled(
            source, classes, role="source", default=source_format, skipped=skipped
        )
    adopt(labelled, first, source)
    shares = class_counts(labelled, (first.labels or labels).names, skipped).pixels.sum(axis=0)
    judgement = judge(models, images, shares, quiet=False)
    ranking = [name for name in judgement.ranking() if name in compared]
    return judgement, [judgement.verdict(name, compared[name]) for name in ranking]


def saved_models(paths: Sequence[Path]) -> list[tuple[str, Segmenter]]:
    """Load the name and the network of each path; for a run, also the source-only model."""
    further = [path / name for path in paths for name in (ADAPTED_FOLDER, SOURCE_ONLY_FOLDER)]
    known = [*paths, *(path for path in further if holds_network(path))]
    return [(str(path), load_segmenter(path).to(pick_device())) for path in known]


def comparisons(names: Sequence[str], against: Path | None) -> dict[str, str]:
    """Say with which model each is compared.

    A model is not compared with itself; nor is the kept model of a run with its source-only model
    where that is the one that was kept.

    Args:
        names: The names of `saved_models`.
        against: The model with which all are compared; None: each run has its own.

    Raises:
        PipaError: No model is the one in `against`.
    """
    if against is not None:
        if str(against) not in names:
            raise PipaError("is none of the models", "--against", f"Models: {', '.join(names)}.")
        return {name: str(against) for name in names if name != str(against)}
    source_only = [name for name in names if Path(name).name == SOURCE_ONLY_FOLDER]
    found: dict[str, str] = {}
    for name in names:
        run = Path(name).parent if Path(name).name == ADAPTED_FOLDER else Path(name)
        own = str(run / SOURCE_ONLY_FOLDER)
        kept_it = own in names and Path(name) == run and str(run / ADAPTED_FOLDER) in names
        base = own if own in names else [*source_only, *names][0]
        if name != base and name not in source_only and not kept_it:
            found[name] = base
    return found
