"""Evaluation of a finished model on labelled images."""

import logging
from collections.abc import Iterable, Sequence

import torch
from rich.progress import track

from pipa.batch import Labelled
from pipa.classes import IGNORE_INDEX, LabelSpace
from pipa.data.dataset import Segmentation, open_labelled
from pipa.data.loading import fitted
from pipa.errors import PipaError, at_least
from pipa.evaluation.scores import Result, Scores
from pipa.models.labeller import Labeller
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating, slide

log = logging.getLogger("pipa")


def evaluate(
    model: Segmenter,
    data: str,
    *,
    classes: str | None = None,
    scale: float | None = None,
    resize: tuple[int, int] | None = None,
    quiet: bool = False,
) -> Result:
    """Score a model on every image of `data`, by sliding windows.

    Args:
        model: The network; its mode is restored.
        data: [FORMAT[/SPLIT]:]PATH of labelled images.
        classes: The classes of the labels, as for `UDAData`; None: those of the data. A model with
            names gets labels by name: what it does not know is not scored, nor are its classes that
            the data do not know.
        scale: Factor by which images are resized for the network; its logits are brought back to
            the size of the label. None: by the model's `resize`.
        resize: First scale images and labels to fit into this size; None: no scaling.
        quiet: Show no progress bar.

    Raises:
        PipaError: No class of the data is one of the model's (of a model without names: the number
            differs), a file is bad, or a size is 0.
    """
    for side in resize or ():
        at_least(1, side, "resize")
    if resize is not None and scale is None:
        scale = 1.0  # the images have their size
    labeller = Labeller(model, scale=scale)
    images, labels = open_labelled(data, classes)
    scored = adopt(images, model, data)
    labels = model.labels or labels
    scores = Scores(labels).to(model.mean.device)
    for index in track(range(len(images)), description="scoring", transient=True, disable=quiet):
        image, label, _ = fitted(images.load(index), resize)
        ids = labeller([image])[0].ids
        scores.update(*(torch.from_numpy(one)[None].to(model.mean.device) for one in (ids, label)))
    return scores.subset(scored)


def adopt(images: Segmentation, model: Segmenter, data: str) -> Sequence[int]:
    """Let labels hold the classes of a model, found by name; name those that the model has not.

    Args:
        images: The data set; it is changed.
        model: The network; without `labels`, the number of its classes is all that is known.
        data: The data set's name, for messages.

    Returns:
        The classes of the model that the data set knows.

    Raises:
        PipaError: Not a single class matches; or, without names, their number differs.
    """
    own = images.table
    assert own is not None, "a data set to score on has labels"
    names, known = own.labels.names, model.labels
    if known is None and len(names) != model.num_classes:
        raise PipaError(
            f"has {len(names)} classes, the model {model.num_classes} without names",
            data,
            "Give --classes the class table that the model was trained with.",
        )
    if known is None or names == known.names:
        return range(len(names))
    try:
        images.table = own.mapped_to(known)
    except PipaError as error:
        raise PipaError(
            f"none of its classes ({', '.join(names[:4])}, ...) is one of the model's "
            f"({', '.join(known.names[:4])}, ...)",
            data,
            "Name them as the model does: in its classes.yaml, or with --classes.",
        ) from error
    ids = images.table.ids
    kept = {own.ids[raw] for raw, found in ids.items() if found != IGNORE_INDEX}
    if lost := sorted(set(own.ids.values()) - kept - {IGNORE_INDEX}):
        left = ", ".join(names[i] for i in lost)
        log.warning("%s: pixels of %s are left out; the model has no such class", data, left)
    return sorted(set(ids.values()) - {IGNORE_INDEX})


def score_images(model: Segmenter, images: Iterable[Labelled], labels: LabelSpace) -> Result:
    """Score a model on labelled images, by sliding windows.

    Args:
        model: The network; its mode is restored.
        images: Batches of images of one size.
        labels: The classes.
    """
    device = model.mean.device
    scores = Scores(labels).to(device)
    with evaluating(model), torch.inference_mode():
        for image, label in images:
            scores.update(slide(model, image.to(device)).argmax(1), label.to(device))
    return scores.result()
