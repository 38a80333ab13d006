"""A network as a function of batches, which other processes and machines can be given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipa.errors import PipaError, at_least
from pipa.models.device import pick_device
from pipa.models.labeller import Answer, Labeller
from pipa.models.saved import load_segmenter
from pipa.models.segmenter import Segmenter

OUTPUTS = ("ids", "confidence", "probabilities")


class Predictor:
    """Adds class ids to batches of images: a callable class for `map_batches` of Ray Data.

    It can be pickled; the network is loaded by the process that uses it, at its first batch.

        images = ray.data.read_images("photos", include_paths=True)
        labelled = images.map_batches(
            pipa.Predictor, fn_constructor_args=["runs/mine"], batch_size=8, concurrency=4
        )

    Args:
        model: A network, or what `load_segmenter` takes: the folder of a run, or `user/model`.
        outputs: The columns to add, some of: ids, uint8 (h, w); confidence, the probability of the
            class, uint8 (h, w), 255 for 1; probabilities of all classes, float16 (k, h, w).
        column: The column with the images: RGB, uint8 (h, w, 3), or grey (h, w); of one size, or
            each of its own.
        scale: Factor by which images are resized for the network; outputs have the image's size.
            None: by the model's `resize`.
        batch: Images of one size that go through the network together; memory against speed.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "mps".

    Raises:
        PipaError: An option is not possible, or (at the first batch) the network cannot be read or
            there is no such device.
    """

    def __init__(
        self,
        model: Segmenter | Path | str,
        *,
        outputs: Sequence[str] = ("ids",),
        column: str = "image",
        scale: float | None = None,
        batch: int = 8,
        device: str = "auto",
    ) -> None:
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown or not outputs:
            raise PipaError(f"{unknown}; expected some of {', '.join(OUTPUTS)}", "outputs")
        at_least(1, batch, "batch")
        self.model, self.outputs, self.column = model, tuple(outputs), column
        self.scale, self.batch, self.device = scale, batch, device
        self._labeller: Labeller | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a batch, and the outputs.

        Args:
            batch: Columns by name, all of one length; that of the images is an array (n, h, w, 3),
                or a sequence of arrays (h_i, w_i, 3).

        Returns:
            Outputs of one size are one array (n, ...), others an array of n objects.

        Raises:
            PipaError: The column is missing, or holds no images.
        """
        if self.column not in batch:
            found = ", ".join(batch)
            raise PipaError(f"the batch has no column {self.column} (it has {found})", "column")
        images = [_rgb(image) for image in batch[self.column]]
        answers = self._label(images)
        columns = {
            name: _column([getattr(answer, name) for answer in answers]) for name in self.outputs
        }
        return {**batch, **columns}

    def _label(self, images: Sequence[np.ndarray]) -> list[Answer]:
        if self._labeller is None:
            self._labeller = self._load()
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        answers: dict[int, Answer] = {}
        for places in by_size.values():
            for first in range(0, len(places), self.batch):
                group = places[first : first + self.batch]
                found = self._labeller([images[i] for i in group])
                answers |= dict(zip(group, found, strict=True))
        return [answers[i] for i in range(len(images))]

    def _load(self) -> Labeller:
        model = self.model if isinstance(self.model, Segmenter) else load_segmenter(self.model)
        return Labeller(
            model.to(pick_device(self.device)),
            scale=self.scale,
            confidence="confidence" in self.outputs,
            probabilities="probabilities" in self.outputs,
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_labeller": None}


def _rgb(image: Any) -> np.ndarray:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        problem = f"an image is {array.dtype} {array.shape}; expected uint8 (h, w, 3) or (h, w)"
        raise PipaError(problem, "column")
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def _column(values: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape; keep others as objects."""
    if len({value.shape for value in values}) <= 1:
        return np.stack(values) if values else np.empty((0,), np.uint8)
    column = np.empty(len(values), object)
    column[:] = values
    return column
