"""Early stopping: a run ends when its score has not improved for some validations."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping

from pipa.data.module import UDAData
from pipa.errors import PipaError
from pipa.run.engine import validation_interval


class Patience(Callback):
    """Stops a run whose score no longer improves; scores before `start` do not count.

    Args:
        monitor: The score: "miou", or "judge/score" of a judge that comes before this callback.
        patience: Number of scores without a better one after which the run ends.
        start: The first step with a target: until then a score says nothing of adaptation.
        every: Steps from one score to the next.
    """

    def __init__(self, monitor: str, *, patience: int, start: int, every: int) -> None:
        self.monitor, self.start, self.every = monitor, start, every
        self.stopping = EarlyStopping(
            monitor,
            mode="max",
            patience=patience,
            check_finite=False,
            check_on_train_epoch_end=False,
        )

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Look at the mIoU that was just measured."""
        if self.monitor == "miou" and trainer.global_step > self.start:
            self.stopping.on_validation_end(trainer, module)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Look at the score of the judge, which needs no validation data."""
        step = trainer.global_step
        if self.monitor != "miou" and step % self.every == 0 and step > self.start:
            self.stopping.on_validation_end(trainer, module)

    def state_dict(self) -> dict[str, Any]:
        """Save the best score and how long ago it was."""
        return self.stopping.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.stopping.load_state_dict(state_dict)


def patience_for(
    trainer: Mapping[str, Any], data: UDAData, start: int, *, judged: bool
) -> list[Callback]:
    """Build the callback that `--trainer.patience` asks for; none if it does not.

    Args:
        trainer: The `trainer` section.
        data: The data; with validation, the score is the mIoU.
        start: The first step with a target.
        judged: Whether a judge scores without labels.

    Raises:
        PipaError: There is no score to watch.
    """
    patience = int(trainer.get("patience") or 0)
    if not patience:
        return []
    if data.validation is None and not judged:
        remedy = "Give --data.validation, or --judge N with a method that adapts."
        raise PipaError("there is no score to watch", "--trainer.patience", remedy)
    monitor = "judge/score" if data.validation is None else "miou"
    every = validation_interval(trainer)
    return [Patience(monitor, patience=patience, start=start, every=every)]
