"""Callbacks that watch a run: progress, throughput, pictures, checks. They never change it."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch
from pipa.errors import PipaError
from pipa.uda.method import Method
from pipa.uda.self_training import SelfTraining

log = logging.getLogger(__name__)

Key = TypeVar("Key")


class Progress(TQDMProgressBar):
    """A single bar for the whole run, with the loss terms and the rate."""

    @property
    def total_train_batches(self) -> int:
        """Number of steps of the run, since our loaders are endless."""
        return int(self.trainer.max_steps)

    def on_train_epoch_start(self, trainer: L.Trainer, *unused: Any) -> None:
        """Call the bar "training", since there are no epochs."""
        super().on_train_epoch_start(trainer, *unused)
        self.train_progress_bar.set_description("training")

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the losses of the last step, `source=0.41, mixed=0.12`, and the other metrics.

        The bar asks when it is drawn, so that only then a step waits for the device.
        """
        found = super().get_metrics(trainer, pl_module)
        found.pop("v_num", None)
        losses = pl_module.losses if isinstance(pl_module, Method) else {}
        return read_losses(losses) | found


def read_losses(losses: Mapping[Key, Tensor]) -> dict[Key, float]:
    """Return the values of losses, in one transfer from the device."""
    values = torch.stack([loss.float() for loss in losses.values()]).tolist() if losses else []
    return dict(zip(losses, values, strict=True))


class Throughput(Callback):
    """Logs the images per second that training consumes, source and target together."""

    def __init__(self) -> None:
        self.since, self.images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Count the images; log at the steps of the other numbers."""
        self.images += len(batch.source.image)
        if batch.target is not None:
            self.images += len(batch.target.image)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.perf_counter()
            module.log("images_per_second", self.images / (now - self.since))
            self.since, self.images = now, 0


class LearningRate(Callback):
    """Logs the learning rate of the schedule: that of a parameter without a factor of its own."""

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Log the rate of the step that begins, where the other numbers are logged."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            assert isinstance(module, Method)
            group = trainer.optimizers[0].param_groups[0]
            module.log("lr", module.optim.lr * group["lr"] / (group["initial_lr"] or 1.0))


class FiniteGuard(Callback):
    """Stops a run whose losses or weights are not finite, naming the term and its step.

    A step only keeps its losses, on the device. They are checked, together with the weights, at
    steps that log, before a checkpoint is written, and at the end: no checkpoint holds NaN.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[int, dict[str, Tensor]]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Keep the losses of the step; check them at steps that log."""
        if isinstance(module, Method):
            self.losses.append((trainer.global_step, module.losses))
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.read(module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check before a checkpoint replaces a good one."""
        self.read(module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Check the steps after the last log."""
        self.read(module)

    def read(self, module: L.LightningModule) -> None:
        """Check all kept losses in one transfer, then the weights.

        Raises:
            PipaError: A loss or a weight is not finite.
        """
        kept, self.losses = self.losses, []
        found = read_losses(
            {(name, step): loss for step, losses in kept for name, loss in losses.items()}
        )
        for (name, step), value in found.items():
            if not math.isfinite(value):
                remedy = "Lower --optim.lr or the weight of that term, or train in float32."
                raise PipaError(f"loss/{name} is {value} at step {step}", remedy=remedy)
        refuse_non_finite(module)


def refuse_non_finite(network: nn.Module) -> None:
    """Check the weights and the running statistics of a network.

    Raises:
        PipaError: One of them is infinite or NaN.
    """
    state = {
        name: value.detach()
        for name, value in network.state_dict().items()
        if value.is_floating_point() and value.numel()
    }
    largest = torch.stack(
        [norm.float() for norm in torch._foreach_norm([*state.values()], torch.inf)]
    )
    for name, value in zip(state, largest.tolist(), strict=True):
        if not math.isfinite(value):
            remedy = "Lower --optim.lr, or train in float32."
            raise PipaError(f"the weight {name} is {value}", remedy=remedy)


class PseudoLabels(Callback):
    """Logs the classes of pseudo-labels; warns once of a class that vanishes or swallows others.

    The first pseudo-labels are those of the source-only student: the shares of the classes are
    compared with these. A class vanishes if it had at least 0.5 % of the pixels and keeps less than
    a twentieth of that; it swallows others if its share grows more than threefold, to over 20 %.
    It logs the share of each class as `pseudo_share/CLASS`, and
    `pseudo/weight`, the mean weight, and `pseudo/sure`, the share of pixels whose probability
    reaches the teacher's `confidence`.

    Args:
        names: Names of the classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.count: Tensor | None = None
        self.weight: Tensor | float = 0.0
        self.sure: Tensor | float = 0.0
        self.steps = 0
        self.first: list[float] | None = None
        self.warned = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count on the device; read the counts only at steps that log."""
        if not isinstance(module, SelfTraining):
            return
        last = module.last_step
        if last is None or last.pseudo is None or last.batch is None or last.batch.target is None:
            return
        pseudo, valid = last.pseudo, last.batch.target.valid.flatten()
        label = pseudo.label.flatten()
        if self.count is None:
            self.count = torch.zeros(len(self.names), dtype=torch.long, device=label.device)
        self.count.scatter_add_(0, label, valid.long())
        self.weight = self.weight + pseudo.weight.mean()
        sure = pseudo.confidence >= module.teacher.confidence
        self.sure = self.sure + sure.float().mean()
        self.steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            shares = (self.count / self.count.sum().clamp(min=1)).tolist()
            logged = {f"pseudo_share/{k}": s for k, s in zip(self.names, shares, strict=True)}
            means = {"weight": self.weight / self.steps, "sure": self.sure / self.steps}
            module.log_dict(logged | {f"pseudo/{name}": mean for name, mean in means.items()})
            if sum(shares):  # else no pixel was valid
                self._compare(shares)
            self.count, self.weight, self.sure, self.steps = None, 0.0, 0.0, 0

    def _compare(self, shares: list[float]) -> None:
        """Warn, once, of a class that has nearly vanished or grown threefold."""
        if self.first is None:
            self.first = shares
        found = [
            f"{name} {'vanished' if now < before else 'swallows others'} "
            f"({100 * before:.1f} -> {100 * now:.1f} %)"
            for name, before, now in zip(self.names, self.first, shares, strict=True)
            if (before >= 0.005 and now < before / 20) or (now > 0.2 and now > 3 * before)
        ]
        if found and not self.warned:
            self.warned = True
            log.warning(
                "the pseudo-labels degrade: %s; try those of --method.pseudo_weight balanced, "
                "--method.marginal true, --method.mix rectangle that are off, or a later "
                "--method.start",
                ", ".join(found),
            )

    def state_dict(self) -> dict[str, Any]:
        """Save the first shares in checkpoints."""
        return {"first": self.first, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the first shares."""
        self.first, self.warned = state_dict["first"], state_dict["warned"]


class Pictures(Callback):
    """Writes the images of a step to TensorBoard: source, target, mixed, pseudo-label, pair.

    Args:
        colours: RGB of each class.
        every: Steps between pictures.
    """

    def __init__(self, colours: tuple[tuple[int, int, int], ...], every: int = 500) -> None:
        palette = torch.full((256, 3), 0, dtype=torch.uint8)
        palette[: len(colours)] = torch.tensor(colours, dtype=torch.uint8)
        self.palette, self.every = palette, every

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Write the first images of the batch, side by side."""
        board = [log for log in trainer.loggers if isinstance(log, TensorBoardLogger)]
        if not board or trainer.global_step % self.every or not isinstance(module, Method):
            return
        for name, picture in self._panels(module).items():
            board[0].experiment.add_image(name, picture, trainer.global_step)

    def _panels(self, module: Method) -> dict[str, Tensor]:
        last = module.last_step
        if last is None:
            return {}
        panels = {"source": self._row(last.source.image, last.source.label)}
        if last.batch is not None and last.batch.target is not None:
            assert last.pseudo is not None
            assert last.mixed is not None
            panels["target and pseudo-label"] = self._row(
                last.batch.target.image, last.pseudo.label
            )
            panels["mixed"] = self._row(last.mixed.image, last.mixed.label)
            pair = last.batch.pair
            if pair is not None:
                panels["the pair"] = side_by_side(pair.first.image, pair.second.image)
        return panels

    def _row(self, image: Tensor, label: Tensor) -> Tensor:
        coloured = self.palette[label.cpu()].permute(0, 3, 1, 2).float() / 255
        return side_by_side(image, coloured)


def side_by_side(left: Tensor, right: Tensor, maximum: int = 4) -> Tensor:
    """Join pairs of pictures in [0, 1] into one: `(b, 3, h, w)` twice to `(3, h', 2 w)`."""
    right = F.interpolate(right[:maximum].cpu().float(), left.shape[-2:])
    rows = torch.cat([left[:maximum].detach().cpu().float(), right], dim=3)
    return torch.cat(list(rows), dim=1).clamp(0, 1)
