"""What changes the cost of a step, not what it computes: compiling, less memory, memory kept.

`CompileParts` compiles what is the same in every step: backbones, heads and whole teachers. The
step around them, with its random crop for HRDA's detail, stays Python, so that a new place of this
crop neither breaks a graph nor makes a new one.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pipa.batch import Batch
from pipa.data.loading import each_tensor
from pipa.errors import PipaError, at_least
from pipa.models.backbones import Backbone
from pipa.models.segmenter import Segmenter
from pipa.uda.method import Method
from pipa.uda.teacher import Teacher
from pipa.uda.terms.masked import OwnTeacher


@dataclass(frozen=True)
class Speed:
    """The options `--compile`, `--checkpoint` and `--accumulate`.

    Args:
        compile: Compile backbone, heads and teacher.
        checkpoint: Compute the blocks of the student's backbone again in the backward pass.
        accumulate: Parts of a batch that go through one after the other, before one update.

    Raises:
        PipaError: `accumulate` is below 1.
    """

    compile: bool = False
    checkpoint: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        at_least(1, self.accumulate, "accumulate")

    def prepare(self, method: Method, batch_size: int) -> None:
        """Change a method, before training, to what the options say; compiling is a callback.

        Raises:
            PipaError: The batch cannot be split, or a term counts the parts as steps.
        """
        if self.checkpoint:
            checkpoint_blocks(method.student)
        if self.accumulate > 1:
            accumulate(method, self.accumulate, batch_size)

    @property
    def callbacks(self) -> list[Callback]:
        """Return the callbacks that the options need."""
        return [CompileParts()] if self.compile else []


class CompileParts(Callback):
    """Compiles the parts of a method for its training steps; all else runs uncompiled.

    Each part is compiled when it is first called, and once more for every further size of its
    input: a validation with images of any size would never come to an end of that. Names of
    weights, and what is saved, do not change.

    Args:
        backend: Compiler of `torch.compile`.
    """

    def __init__(self, backend: Any = "inductor") -> None:
        self.backend = backend
        self.parts: list[tuple[nn.Module, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Compile, which so far means: remember to."""
        assert isinstance(module, Method)
        install_hooks(module)
        for part in parts_of(module):
            part.compile(fullgraph=True, dynamic=False, backend=self.backend)
            self.parts.append((part, part._compiled_call_impl))
            part._compiled_call_impl = None

    def on_train_batch_start(self, trainer: L.Trainer, *unused: Any) -> None:
        """Call the compiled parts from here on."""
        for part, compiled in self.parts:
            part._compiled_call_impl = compiled

    def on_train_batch_end(self, trainer: L.Trainer, *unused: Any) -> None:
        """Call the parts themselves again."""
        for part, _ in self.parts:
            part._compiled_call_impl = None


def install_hooks(module: nn.Module) -> None:
    """Install the hooks by which `transformers` returns the maps of all stages.

    It would do so in the first call, under a lock, which cannot be compiled.
    """
    from transformers import PreTrainedModel
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            maybe_install_capturing_hooks(part)


def parts_of(method: Method) -> list[nn.Module]:
    """Return the parts of a method that are compiled, each on its own.

    They are the backbone and the heads of every network that is called piece by piece (the student,
    the frozen encoder of feature distance), and the whole network of every teacher.
    """
    whole = {part.network for part in method.modules() if isinstance(part, Teacher)}
    pieces = [
        piece
        for network in method.modules()
        if isinstance(network, Segmenter) and network not in whole
        for piece in network.children()
    ]
    return [*pieces, *whole]


def checkpoint_blocks(network: Segmenter) -> None:
    """Compute the blocks of a backbone again in the backward pass instead of keeping their results.

    Chen et al.: Training Deep Nets with Sublinear Memory Cost (2016). It takes about a third more
    time; results are equal, since each block draws the same dropout again.

    Args:
        network: The student, changed in place.

    Raises:
        PipaError: It is a network of the user's own, whose blocks nobody knows.
    """
    if not isinstance(network.backbone, Backbone):
        raise PipaError("needs a backbone of pipa, and the network is your own", "--checkpoint")
    for block in network.backbone.blocks():
        norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
        block.forward = partial(_recomputed, block.forward, norms)


def _recomputed(
    forward: Callable[..., Any], norms: list[_BatchNorm], *inputs: Any, **options: Any
) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _without_tracking(norms)

    # Compiled, a block is not called again: what it does to its norms it does once.
    if norms and not torch.compiler.is_compiling():
        options["context_fn"] = contexts
    return checkpoint(forward, *inputs, use_reentrant=False, **options)


@contextmanager
def _without_tracking(norms: list[_BatchNorm]) -> Iterator[None]:
    """Keep norms in training from counting a batch that they have counted already."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0  # the averages take nothing of this batch
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def accumulate(method: Method, count: int, batch_size: int) -> None:
    """Let the parts of each batch go through one after the other, before one update.

    Each part is a step of its own up to the update: its draws, q_T and contrasts are its own.

    Args:
        method: The method, changed in place.
        count: Number of the parts.
        batch_size: Images of a batch.

    Raises:
        PipaError: The batch cannot be split, or a term counts the parts as steps.
    """
    if batch_size % count:
        problem = f"is {count}, and a batch has {batch_size} images"
        raise PipaError(problem, "--accumulate", "Give a divisor of --data.batch_size.")
    if any(isinstance(part, OwnTeacher) for part in method.modules()):
        remedy = "Take --masked.teacher shared, or --checkpoint to save memory."
        raise PipaError("does not go with a teacher of a term", "--accumulate", remedy)
    step = method.training_step

    def in_parts(batch: Batch, batch_idx: int) -> None:
        for method.part in range(count):
            step(each_tensor(batch, lambda tensor: tensor.chunk(count)[method.part]), batch_idx)
        method.part = 0

    method.parts = count
    method.training_step = in_parts  # type: ignore[method-assign]


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory for the next step; elsewhere do nothing.

    A step frees nearly all that it has taken. Given back to the system and taken again, each page
    costs a fault and is cleared: a tenth of a step of a small network on a CPU.
    """
    trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)  # the greatest that it accepts
