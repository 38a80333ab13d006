"""Ending a run on SIGTERM or Ctrl-C: after the step at hand, with a checkpoint, in one line."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback

from pipa.errors import Interrupted
from pipa.run.checkpoints import has_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ends(Protocol):
    """A process that can be asked to end."""

    def terminate(self) -> None:
        """Send SIGTERM."""


@contextmanager
def ending_with(processes: Callable[[], Iterable[Ends]], said: str) -> Iterator[None]:
    """End other processes, too, when SIGTERM ends this one, which Ctrl-C does by itself.

    Args:
        processes: Returns those that run; each saves what it has, and ends.
        said: What was kept and how to go on, without a full stop at the end.

    Raises:
        Interrupted: SIGTERM came.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for process in processes():
            process.terminate()
        raise Interrupted(number, said)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopOnSignal(Callback):
    """Saves `last.ckpt` after the step in which a signal came, and ends the run.

    Before the first step and after the last one a run ends at once, as it does on a second Ctrl-C.
    A second SIGTERM is no impatience: a job's end reaches a training both by itself and from the
    command that started it (`ending_with`). With several processes all must save after the same
    step: they agree on it when logs are made.

    Args:
        out: The run's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.owner = out, os.getpid()
        self.came: int | None = None
        self.waits = False
        """Whether a signal waits for the end of the step, or of the last files."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals; give them back at the end. Only the main thread of a process can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        except RuntimeError as error:
            if self.came is None:
                raise
            raise self.interruption() from error  # the signal ended a worker before the step
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a loader's process, which inherits this handler
            if number == signal.SIGTERM:
                os._exit(0)
            return
        again, self.came = self.came is not None, number
        if not self.waits or (again and number == signal.SIGINT):
            raise self.interruption()

    def interruption(self, step: int | None = None) -> Interrupted:
        """The error that ends the run, after a step that is saved or before there is one."""
        assert self.came is not None
        if not has_checkpoint(self.out):
            return Interrupted(self.came, "interrupted before the first checkpoint")
        after = "" if step is None else f" after step {step}"
        how = f"`pipa train --resume {self.out}` goes on from the last checkpoint"
        return Interrupted(self.came, f"interrupted{after}; {how}")

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose handler ends a run without an error."""
        self.waits = True
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """From here on, nothing is lost by ending at once."""
        self.waits = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Save and end, if a signal came."""
        came = self.came is not None
        if trainer.world_size > 1:
            if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
                return
            came = trainer.strategy.reduce_boolean_decision(came, all=False)
        if came:
            self.came = self.came or signal.SIGTERM
            trainer.save_checkpoint(self.out / "checkpoints" / "last.ckpt")
            raise self.interruption(trainer.global_step)

    def on_validation_batch_end(self, trainer: L.Trainer, *unused: Any) -> None:
        """End in the middle of a validation: the step before it has its checkpoint."""
        if self.came is not None and trainer.world_size == 1:
            raise self.interruption(trainer.global_step)
