"""Judging finished models without labels."""

from collections.abc import Sequence
from pathlib import Path

from pipa.data.dataset import open_labelled
from pipa.data.rare_classes import class_counts
from pipa.data.unlabelled import each_image
from pipa.errors import PipaError, at_least
from pipa.evaluation.evaluate import adopt
from pipa.evaluation.judge import Judgement, judge
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
) -> tuple[Judgement, str]:
    """Judge finished models; for a run, judge its model and its source-only model.

    Args:
        paths: Runs, model folders, checkpoints.
        target: Unlabelled images, `[FORMAT[/SPLIT]:]PATH`; None: those of the first run.
        source: Data whose class shares are counted; None: the source of the first run.
        classes: The classes of the source; None: those of the first run, or the data set's own.
        count: Maximum number of target images.
        against: The model with which the others are compared; None: the first source-only one.

    Returns:
        The judgement, and the name of the model with which the others are compared.

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
    before = [name for name in models if name.endswith(SOURCE_ONLY_FOLDER)]
    baseline = [*before, *models][0]
    baseline = baseline if against is None else str(against)
    if baseline not in models:
        raise PipaError("is none of the models", "--against", f"Models: {', '.join(models)}.")
    first = models[str(paths[0])]
    given = known.get("target_resize")  # for models that were saved without it
    resize = first.resize or (None if given is None else (given[0], given[1]))
    if any(model.resize not in (None, resize) for model in models.values()):
        raise PipaError("was trained on images of other sizes than the rest", paths[0])
    classes = classes or known.get("classes")
    with reading_data_of(paths[0]):
        images = list(
            each_image(target, count, format=target_format, resize=resize, skipped=skipped)
        )
        labelled, labels = open_labelled(
            source, classes, role="source", default=source_format, skipped=skipped
        )
    adopt(labelled, first, source)
    shares = class_counts(labelled, (first.labels or labels).names, skipped).pixels.sum(axis=0)
    return judge(models, images, shares, quiet=False), baseline


def saved_models(paths: Sequence[Path]) -> list[tuple[str, Segmenter]]:
    """Load the name and the network of each path; for a run, also the source-only model."""
    further = [path / name for path in paths for name in (ADAPTED_FOLDER, SOURCE_ONLY_FOLDER)]
    known = [*paths, *(path for path in further if holds_network(path))]
    return [(str(path), load_segmenter(path).to(pick_device())) for path in known]
