"""What a training step costs: CPU seconds in a unit that any machine can measure, and its phases.

python benchmarks/training_step.py [--rows DAFormer "HRDA+PiPa"] [--steps 4]
    [--json runs/benchmarks/training_step.json]

MiT-B0 with random weights, batches of 2 source and 2 target images in memory, feature distance on,
one CPU thread, each row in a process of its own. The unit is a forward and backward pass of a plain
SegFormer (`measuring.unit`), measured before, between and after the rows; a row is divided by the
two readings around it. The authors' released steps at the same sizes are printed beside ours
(one core, the same unit); their patch loss trains no weight of the student, ours does.
"""

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from measuring import peak, report, reset_peak, unit

import pipa
from pipa.batch import Batch, Labelled, PairPlace, Unlabelled
from pipa.classes import CITYSCAPES
from pipa.data.bounds import default_pair
from pipa.models.layout import use_fast_layout
from pipa.run.engine import hush_lightning
from pipa.run.recipes import MethodOptions, build_method, chosen_terms, default_terms
from pipa.uda.method import Method
from pipa.uda.optim import Optim

WARM_UP = 2
COLUMNS = ("step", "seconds", "units", "released", "ratio", "MiB", "share by phase")


@dataclass(frozen=True)
class Row:
    """One method at its sizes, in pixels; cost of the authors' step, in units."""

    method: str
    network: str
    crop: int
    released: float
    options: dict[str, Any] = field(default_factory=dict)


ROWS = {
    "DAFormer": Row("daformer", "daformer_mit_b0", 128, 6.9),
    "DAFormer+PiPa": Row("pipa", "daformer_mit_b0", 128, 13.9),
    "HRDA": Row("daformer", "hrda_mit_b0", 256, 22.8, {"detail": 128}),
    "HRDA+PiPa": Row("pipa", "hrda_mit_b0", 256, 33.8, {"detail": 128}),
}


def build(row: Row) -> Method:
    """The method that `pipa train` would build, but that random weights count as pretrained."""
    torch.manual_seed(0)
    student = pipa.create_segmenter(row.network, CITYSCAPES.num_classes, **row.options)
    student.labels = CITYSCAPES
    use_fast_layout(student)
    options = MethodOptions(name=row.method)
    terms = chosen_terms(options, default_terms())
    return build_method(options, student, CITYSCAPES, terms, optim=Optim(), pretrained=True)


def batch_of(row: Row, seed: int, b: int = 2) -> Batch:
    """Blocks of random classes, their images, a target, and a pair in its opposite corners."""
    generator = torch.Generator().manual_seed(seed)
    shape = (b, 3, row.crop, row.crop)
    blocks = torch.randint(CITYSCAPES.num_classes, (b, *(row.crop // 16,) * 2), generator=generator)
    label = blocks.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    source = Labelled(torch.rand(shape, generator=generator), label)
    valid = torch.ones(b, row.crop, row.crop, dtype=torch.bool)
    target = Unlabelled(torch.rand(shape, generator=generator), valid)
    size = default_pair("crop", (row.crop, row.crop), 8)
    corner = torch.tensor([[[0, 0], [row.crop - size[0], row.crop - size[1]]]] * b)
    flipped = torch.tensor([[False, i % 2 == 1] for i in range(b)])
    return Batch(source, target, PairPlace(corner, flipped).of(target, size))


class Phases:
    """CPU seconds by phase; a phase within another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open = ["rest"]
        self.since = time.process_time()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done within to this phase."""
        self._count()
        self.open.append(name)
        try:
            yield
        finally:
            self._count()
            self.open.pop()

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def watch(self, owner: object, attribute: str, name: str) -> None:
        """Count each call of a method of this one object."""
        function: Callable[..., Any] = getattr(owner, attribute)

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        object.__setattr__(owner, attribute, timed)


def watched(method: Method) -> Phases:
    """Watch what a step consists of."""
    phases = Phases()
    for owner, attribute, name in (
        (method.teacher, "label", "teacher"),
        (method.teacher, "follow", "EMA"),
        (method.student, "analyse", "student forward"),
        (method.student, "context", "student forward"),
        (method, "manual_backward", "backward"),
        (method, "mix", "mix, jitter"),
        (method, "update", "optimiser, log"),
        *((term, "forward", term.name) for term in method.terms),
    ):
        phases.watch(owner, attribute, name)
    return phases


class Clock(Callback):
    """CPU seconds of each step; phases and peak memory of those after the warm-up."""

    def __init__(self, phases: Phases) -> None:
        self.phases, self.seconds = phases, []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Start counting."""
        if batch_idx == WARM_UP:
            self.phases.seconds.clear()
            reset_peak()
        self.phases.since = self.since = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop counting."""
        with self.phases.phase("rest"):
            self.seconds.append(time.process_time() - self.since)


class Feed:
    """The same few batches again and again; Lightning takes a bare list for several loaders."""

    def __init__(self, row: Row, count: int) -> None:
        self.batches = [batch_of(row, seed) for seed in range(2)]
        self.count = count

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in turn."""
        return (self.batches[i % 2] for i in range(self.count))

    def __len__(self) -> int:
        """How many there are."""
        return self.count


def measure(name: str, steps: int) -> dict[str, Any]:
    """Steps of one row: the median of their CPU seconds, peak memory, seconds by phase."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    hush_lightning()
    method = build(ROWS[name])
    clock = Clock(watched(method))
    trainer = L.Trainer(
        max_steps=WARM_UP + steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(method, Feed(ROWS[name], WARM_UP + steps))
    total = sum(clock.phases.seconds.values())
    shares = {phase: spent / total for phase, spent in clock.phases.seconds.items()}
    return {
        "step": name,
        "seconds": statistics.median(clock.seconds[WARM_UP:]),
        "MiB": peak(),
        "shares": dict(sorted(shares.items(), key=lambda item: -item[1])),
    }


def main() -> None:
    """Measure the rows, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=[*ROWS])
    parser.add_argument("--steps", type=int, default=4, help="steps that count, of each row")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/training_step.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    readings, rows = [unit()], []
    for name in options.rows:
        with get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (name, options.steps))
        readings.append(unit())
        released = ROWS[name].released
        units = row["seconds"] / statistics.mean(readings[-2:])
        shares = ", ".join(f"{k} {v:.0%}" for k, v in row["shares"].items() if v >= 0.01)
        rows.append(
            row
            | {"units": units, "released": released, "ratio": units / released}
            | {"unit before and after": readings[-2:], "share by phase": shares}
        )
    print("the unit, seconds:", ", ".join(f"{reading:.3f}" for reading in readings))
    report("A training step on one thread", COLUMNS, rows, options.json)


if __name__ == "__main__":
    main()
