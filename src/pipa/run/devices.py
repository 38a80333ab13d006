"""The devices of a run: how many processes, what they say, and how they learn together."""

import logging
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.strategy import _ForwardRedirection
from torch.distributed import DistError
from torch.nn.parallel import DistributedDataParallel

from pipa import __version__
from pipa.errors import PipaError
from pipa.models.device import pick_device

log = logging.getLogger("pipa")

PACKAGES = ("torch", "lightning", "transformers", "kornia")


class AveragedByMethod(DDPStrategy):
    """DDP that starts the processes and equals their weights, and leaves the gradients alone.

    A step runs several backward passes, and not all of them reach all weights. DDP would average
    the gradients after each; `Method.update` does it once, with all that a step changes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(broadcast_buffers=False, **options)
        self._forward_redirection = _ForwardRedirection()  # DDP's own switches averaging on

    def configure_ddp(self) -> None:
        """Wrap the module, as in DDP's `no_sync` from the first step to the last."""
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.require_backward_grad_sync = False


def settle_devices(options: Mapping[str, Any]) -> dict[str, Any]:
    """Say how many devices are meant by "auto": those of the launcher, else one.

    A batch is `data.batch_size` images of each domain for every device, so more devices change the
    results. `torchrun` and `srun` say how many there are; otherwise `--trainer.devices` must.

    Args:
        options: The trainer's own arguments.

    Raises:
        PipaError: The precision is not possible.
    """
    given = dict(options)
    refuse_precision(given.get("precision"))
    devices = given.get("devices")
    if str("auto" if devices is None else devices) != "auto":
        return given  # as asked; -1: all of them
    if TorchElasticEnvironment.detect():
        local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        return given | {"devices": local, "num_nodes": world // local}
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return given | {"devices": int(os.environ["SLURM_NTASKS"]) // nodes, "num_nodes": nodes}
    if training_device(given) == "cuda" and (here := torch.cuda.device_count()) > 1:
        log.warning("%d GPUs are here, one is used; --trainer.devices %d uses all", here, here)
    return given | {"devices": 1}


def tell_of_batch(engine: L.Trainer, batch_size: int, lr: float) -> None:
    """Say what several processes mean for the batch."""
    if engine.world_size > 1 and engine.is_global_zero:
        log.warning(
            "%d processes: a step sees %d images of each domain, %d in each; the learning rate "
            "stays %g",
            engine.world_size,
            engine.world_size * batch_size,
            batch_size,
            lr,
        )


@contextmanager
def told_of_lost_processes(run: Path) -> Iterator[None]:
    """Turn the error of a process that has lost another one into a line.

    Raises:
        PipaError: Another process has ended.
    """
    try:
        yield
    except RuntimeError as error:  # gloo has no class of its own for it
        if not (isinstance(error, DistError) or "gloo" in str(error).lower()):
            raise
        remedy = f"See what that one wrote; `pipa train --resume {run}` goes on."
        raise PipaError("another process of the run has ended", run, remedy) from error


def refuse_precision(precision: object) -> None:
    """Refuse what the weights cannot have: they and their averages need float32.

    In half precision the teacher's average would stand still, and counts would stop at 256.

    Args:
        precision: Of Lightning's trainer; None: its default.

    Raises:
        PipaError: It is 64, or half precision without float32 weights.
    """
    name = str(precision)
    if name.startswith("64"):
        raise PipaError("is 64, and images are float32", "--trainer.precision")
    if name in ("16-true", "bf16-true"):
        problem = f"is {name}, and the weights need float32"
        raise PipaError(problem, "--trainer.precision", "Give 16-mixed, bf16-mixed or 32-true.")


def training_device(options: Mapping[str, Any]) -> str:
    """Return the device of Lightning's trainer: "cpu", or "cuda" for any accelerator."""
    accelerator = str(options.get("accelerator") or "auto")
    if accelerator == "auto":
        return pick_device()
    return "cpu" if accelerator == "cpu" else "cuda"


def uses_several(options: Mapping[str, Any]) -> bool:
    """Whether Lightning's trainer will train in several processes; options may be strings."""
    devices = options.get("devices") or "auto"
    if options.get("num_nodes", 1) > 1:
        return True
    if str(devices) in ("auto", "-1"):
        return options.get("accelerator", "auto") != "cpu" and torch.cuda.device_count() > 1
    if str(devices).isdigit():
        return int(devices) > 1
    listed = devices.split(",") if isinstance(devices, str) else devices
    return sum(str(device).strip() != "" for device in listed) > 1


def environment() -> dict[str, str]:
    """Return the versions and the commit on which the results depend."""
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:  # a machine without git
        git = ""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "git": git,
        "pipa": __version__,
        **{name: version(name) for name in PACKAGES},
    }
