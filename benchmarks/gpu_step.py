"""What a training step asks of a GPU, counted on fake tensors: nothing runs, and no GPU is needed.

python benchmarks/gpu_step.py [--rows "HRDA+PiPa, windows side by side"] [--network mit_b5]
    [--json runs/benchmarks/gpu_step.json]

The papers' sizes: MiT-B5, batches of 2 source and 2 target images, autocast to bfloat16, feature
distance on, after `patch.start`. A device operation is a call into torch that computes something
(`aten`, no views); with `--compile` each compiled part counts as one, and its backward as another.
GB moved are the inputs and outputs of all uncompiled operations, a bound from above for compiled
ones. Live tensors include weights, gradients and the optimiser's state. Times are not measured.
"""

import argparse
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from fake_cuda import FakeRun, fake_cuda, on_cuda
from measuring import report
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from training_step import Row, batch_of, build

from pipa.run.speed import checkpoint_blocks, parts_of

SIDE_BY_SIDE = {"detail_stride": 512}
ROWS = {
    "DAFormer": Row("daformer", "daformer", 512, 0),
    "DAFormer+PiPa": Row("pipa", "daformer", 512, 0),
    "HRDA": Row("daformer", "hrda", 1024, 0),
    "HRDA+PiPa": Row("pipa", "hrda", 1024, 0),
    "HRDA+PiPa, windows side by side": Row("pipa", "hrda", 1024, 0, SIDE_BY_SIDE),
}
COLUMNS = ("step", "TFLOP", "GB moved", "operations", "compiled", "live GiB", "with checkpoint")
FREE = ("detach", "alias", "lift_fresh", "empty", "new_empty", "empty_like", "empty_strided")
"""Operations that compute nothing although they are not views."""
aten = torch.ops.aten


class Cost(TorchDispatchMode):
    """Counts the operations on the device, their bytes and FLOPs, and the bytes of live tensors.

    Args:
        compiled: Parts that count as one operation, forward and backward.
    """

    def __init__(self, compiled: list[nn.Module]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()
        self.inside = 0
        self.nodes: dict[Any, int] = {}
        self.restart()
        for part in compiled:
            part.register_forward_pre_hook(self._enter)
            part.register_forward_hook(self._leave)

    def restart(self) -> None:
        """Forget what was counted, but not what is alive."""
        self.eager = self.with_compiled = self.passes = 0
        self.bytes = self.flops = 0.0
        self.peak = self.live
        self.nodes.clear()
        self.names: Counter[str] = Counter()
        self.backwards: set[int] = set()

    def track(self, tensors: Iterator[Tensor]) -> None:
        """Count the storages of tensors until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known and tensor.device.type == "cuda":
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _free(self, key: int, count: int) -> None:
        self.known.discard(key)
        self.live -= count

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and count it."""
        found = function(*args, **(kwargs or {}))
        out = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.track(iter(out))
        name = function._schema.name.partition("::")[2]
        on_device = any(tensor.device.type == "cuda" for tensor in [*out, *given])
        if on_device and function.namespace != "prim" and not function.is_view and name not in FREE:
            self.eager += 1
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in [*out, *given])
            self.flops += flops(function, args, kwargs or {}, found)
            before = self.with_compiled
            self._count_compiled()
            self.names[name] += self.with_compiled - before
        return found

    def _count_compiled(self) -> None:
        node = torch._C._current_autograd_node()
        number = self.nodes.get(node) if node is not None else None
        if number is not None and number not in self.backwards:
            self.backwards.add(number)
            self.with_compiled += 1
        elif number is None and not self.inside:
            self.with_compiled += 1

    def _enter(self, part: nn.Module, given: Any) -> None:
        if not self.inside:
            self.passes += 1
            self.with_compiled += 1
        self.inside += 1

    def _leave(self, part: nn.Module, given: Any, found: Any) -> None:
        """Remember the part's nodes in the graph, by which its backward is known."""
        self.inside -= 1
        if self.inside:
            return
        outer = {leaf.grad_fn for leaf in tree_leaves(given) if isinstance(leaf, Tensor)}
        ahead = [leaf.grad_fn for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        while ahead:
            node = ahead.pop()
            if node is None or node in outer or node in self.nodes or is_leaf(node):
                continue
            self.nodes[node] = self.passes
            ahead += [following for following, _ in node.next_functions]


def is_leaf(node: Any) -> bool:
    """Whether a node adds to the gradient of a weight, which is no part of a compiled graph."""
    return bool(node.name().endswith("AccumulateGrad"))


def flops(function: Any, args: Any, kwargs: Any, found: Any) -> float:
    """FLOPs of an operation; of convolutions by their groups, which torch's counter forgets."""
    if function is aten.convolution.default:
        return 2.0 * found.numel() * args[1][0].numel()
    if function is aten.convolution_backward.default:
        return 2.0 * args[0].numel() * args[2][0].numel() * (args[-1][0] + args[-1][1])
    count = flop_registry.get(function._overloadpacket)
    return float(count(*args, **kwargs, out_val=found)) if count else 0.0


def measure(name: str, row: Row, *, checkpoint: bool) -> dict[str, Any]:
    """Count the second step of a method."""
    method = build(row)
    with fake_cuda():
        run, batch = FakeRun(method), on_cuda(batch_of(row, 0))
        if checkpoint:
            checkpoint_blocks(method.student)
        cost = Cost(parts_of(method))
        with cost:
            cost.track(iter(method.state_dict().values()))
            run(batch)
            cost.restart()
            since = time.perf_counter()
            run(batch)
    return {
        "step": name,
        "TFLOP": cost.flops / 1e12,
        "GB moved": cost.bytes / 1e9,
        "operations": cost.eager,
        "compiled": cost.with_compiled,
        "passes of compiled parts": cost.passes,
        "live GiB": cost.peak / 2**30,
        "operations outside of compiled parts": dict(cost.names.most_common(12)),
        "seconds to count": time.perf_counter() - since,
    }


def main() -> None:
    """Count the rows, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--network", default="mit_b5", help="backbone")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/gpu_step.json"))
    options = parser.parse_args()
    rows = []
    for name in options.rows:
        row = replace(ROWS[name], network=f"{ROWS[name].network}_{options.network}")
        with get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (name, row), {"checkpoint": False})
            again = pool.apply(measure, (name, row), {"checkpoint": True})
        both = f"{again['live GiB']:.3g} GiB, {again['TFLOP']:.3g} TFLOP"
        rows.append(found | {"with checkpoint": both, "checkpointed": again})
    report("A training step on a GPU, counted", COLUMNS, rows, options.json)


if __name__ == "__main__":
    main()
