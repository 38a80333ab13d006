"""Training steps on a CUDA device that is not there: shapes, types and devices, but no values.

`torch`'s FakeTensorMode runs a step without computing anything. An operation on tensors of two
devices is an error there, and so is every read of a value, for which a real step would wait for
the device. `fake_cuda.cpp` makes it work on the CPU build of torch, for the rest of the process.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipa.batch import Batch, Box
from pipa.models.hrda import HRDA
from pipa.uda.method import Method
from pipa.uda.optim import adamw, parameter_groups

CUDA = torch.device("cuda:0")
SOURCE = Path(__file__).with_name("fake_cuda.cpp")
COMPILER = shutil.which("g++") or shutil.which("clang++")
"""None where the fake device cannot be built."""


@contextmanager
def fake_cuda(dtype: torch.dtype | None = torch.bfloat16) -> Iterator[None]:
    """Make fake tensors of all that is made within; the device "cuda" exists.

    Args:
        dtype: Type that autocast computes in on the device, as Lightning's `bf16-mixed` does; None:
            no autocast.
    """
    torch.ops.load_library(_built())
    # autocast asks torch.cuda, which knows of no device, and would switch itself off
    with (
        patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(torch.cuda, "is_bf16_supported", lambda: True),
        torch.autograd.set_multithreading_enabled(False),
        FakeTensorMode(),
        torch.autocast("cuda", dtype, enabled=dtype is not None),
    ):
        yield


def _built() -> Path:
    """Compile the library, once for each version of torch and of the source."""
    assert COMPILER is not None, "a C++ compiler is needed"
    text = SOURCE.read_bytes() + torch.__version__.encode()
    built = Path(tempfile.gettempdir()) / f"pipa-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not built.exists():
        home = Path(torch.__file__).parent
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            new = Path(folder) / built.name
            flags = ("-std=c++20", "-fPIC", "-shared", f"-I{home / 'include'}", f"-L{home / 'lib'}")
            libraries = ("-lc10", "-ltorch_cpu")
            command = [COMPILER, *flags, str(SOURCE), "-o", str(new), *libraries]
            subprocess.run(command, check=True, capture_output=True, text=True)
            new.replace(built)
    return built


def on_cuda(tree: Any) -> Any:
    """Return a batch, or any tree of named tuples, on the device."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return torch.empty_strided(tree.shape, tree.stride(), dtype=tree.dtype, device=CUDA)
    return type(tree)(*map(on_cuda, tree))


class FakeGenerator(torch.Generator):
    """A generator of the CPU that says it is the device's; nothing is drawn."""

    device = CUDA  # type: ignore[misc]


class FakeRun:
    """Steps of a method on the device, without Lightning: its optimiser and its backward only.

    Args:
        method: A method that was built on the CPU; it is moved, and of no other use afterwards.
        step: Number of the first step: late enough for the terms to count.
    """

    def __init__(self, method: Method, step: int = 20_000) -> None:
        self.method, self.step = method, step
        for module in method.modules():
            _move(module)
        self.optimiser = adamw(parameter_groups(method, method.optim), method.optim)
        vars(method)["_device"] = CUDA
        vars(method)["_trainer"] = SimpleNamespace(
            global_step=step,
            global_rank=0,
            world_size=1,
            max_steps=2 * step,
            strategy=SimpleNamespace(backward=lambda loss, *unused: loss.backward()),
        )
        vars(method).update(
            optimizers=lambda: self.optimiser,
            lr_schedulers=lambda: SimpleNamespace(step=lambda: None),
            log_dict=lambda *unused, **options: None,
            step_generator=lambda part: FakeGenerator(),
        )
        if isinstance(method.student, HRDA):  # its draw, by the CPU's generator, is fake here, too
            vars(method.student)["_draw_box"] = partial(_corner, method.student.detail)

    def __call__(self, batch: Batch) -> None:
        """Train one step on a batch that is on the device."""
        self.method.training_step(batch, 0)
        torch.clear_autocast_cache()  # as Lightning does by leaving autocast
        self.method._trainer.global_step += 1


def _corner(detail: int, height: int, width: int) -> Box:
    return Box(slice(0, min(detail, height)), slice(0, min(detail, width)))


def _move(module: nn.Module) -> None:
    for name, weight in module._parameters.items():
        if weight is not None and weight.device != CUDA:
            new = nn.Parameter(on_cuda(weight), requires_grad=weight.requires_grad)
            module._parameters[name] = new
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = on_cuda(buffer)
