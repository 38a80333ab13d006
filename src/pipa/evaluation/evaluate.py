"""Evaluation of a finished model on labelled images."""

from collections.abc import Iterable

import torch
from rich.progress import track

from pipa.batch import Labelled
from pipa.classes import LabelSpace
from pipa.data.loading import labelled_images
from pipa.errors import PipaError, at_least
from pipa.evaluation.scores import Result, Scores
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating, slide


def evaluate(
    model: Segmenter,
    data: str,
    *,
    classes: str | None = None,
    resize: tuple[int, int] | None = None,
    quiet: bool = False,
) -> Result:
    """Score a model on every image of `data`, by sliding windows.

    Args:
        model: The network; its mode is restored.
        data: [FORMAT[/SPLIT]:]PATH of labelled images.
        classes: The model's classes, as for `UDAData`; None: those of the data.
        resize: First scale images and labels to fit into this size; None: no scaling.
        quiet: Show no progress bar.

    Raises:
        PipaError: The data's classes differ from the model's, a file is bad, or a side is 0.
    """
    for side in resize or ():
        at_least(1, side, "resize")
    images, labels = labelled_images(data, classes, resize=resize)
    if labels.num_classes != model.num_classes:
        raise PipaError(
            f"has {labels.num_classes} classes, the model {model.num_classes}",
            data,
            "Give --classes the class table that the model was trained with.",
        )
    own = labels.names if model.labels is None else model.labels.names
    # Classes that were given may have other names, but not the same in another order.
    alike = own == labels.names or (classes is not None and set(own) != set(labels.names))
    if model.labels is not None and not alike:
        raise PipaError(
            f"its classes ({', '.join(labels.names[:4])}, ...) are not the model's "
            f"({', '.join(model.labels.names[:4])}, ...)",
            data,
            "Give --classes the class table that the model was trained with.",
        )
    shown = track(images, description="scoring", transient=True, disable=quiet)
    return score_images(model, shown, labels)


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
