"""`pipa demo`: source-only, a control and PiPa on Streets, under equal conditions.

All three start from the same weights and see the same source batches, with the same colour
augmentation; they are scored on held-out camera images. Source-only takes three student passes per
step, the others two, and two over the smaller crops of the pair, which cost about as much.
"""

import contextlib
import json
import logging
import os
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress, TextColumn
from rich.table import Table

from pipa.data.loading import labelled_images
from pipa.errors import Interrupted, PipaError
from pipa.evaluation.evaluate import evaluate
from pipa.evaluation.scores import Result, comparison_table, display_name
from pipa.files.writing import write_text
from pipa.run.adapt import sections_of
from pipa.run.ending import Run, write_report_if_possible
from pipa.run.folder import clear, foreign_files
from pipa.run.grid import as_argument
from pipa.run.interrupt import ending_with
from pipa.run.train import train

ProgressMessage = tuple[str, int, str]
"""Method, step, losses."""
METHODS: dict[str, dict[str, Any]] = {
    "source_only": {"method.name": "source_only", "method.passes": 3},
    "control": {
        "method.name": "daformer",
        "method.momentum": 0.99,
        "method.terms": ["pair_cross_entropy"],
    },
    "pipa": {"method.name": "pipa", "method.momentum": 0.99},
}
"""The control learns by plain cross entropy from the same pairs of crops that PiPa contrasts."""
STREETS = "streets:gap=0.65"
HELD_OUT = "streets/test:gap=0.65"
OPTIONS: dict[str, Any] = {
    "data.source": STREETS,
    "data.target": STREETS,
    "data.validation": STREETS,
    "data.crop": [96, 128],
    "data.batch_size": 4,
    "data.workers": 0,
    "student.name": "small",
    "method.jitter_source": True,
    "pixel.width": 64,
    "pixel.dim": 64,
    "pixel.anchors": 512,
    "patch.width": 64,
    "patch.dim": 64,
    "patch.queries": 400,
    "patch.memory": 1024,
    "optim.lr": 3e-3,
    "optim.head": 1.0,
    "optim.warm_up": 50,
    "optim.power": 0.9,
    "optim.clip": 5.0,
    "trainer.accelerator": "cpu",
    "trainer.limit_val_batches": 50,
    "trainer.log_every_n_steps": 20,
    "trainer.enable_progress_bar": False,
}
"""Options of all three, in sizes that suit the small network."""
MARK = "demo.json"
"""The file by which a demo knows its own runs; written first."""


def demo(out: Path, *, seed: int = 0, steps: int = 1200) -> Table:
    """Train and score the three methods; write `results.json` and `report.html` into `out`.

    Args:
        out: Folder for the report and the three runs; the runs of an earlier demo are replaced.
        seed: Decides the network's first weights and every draw.
        steps: Number of steps of each training.

    Returns:
        A table of all three: IoU of each class, mIoU, gain.

    Raises:
        PipaError: `out` has files in the way that no demo wrote.
    """
    since = time.perf_counter()
    refuse_to_replace(out)
    labelled_images(HELD_OUT)  # draws Streets on first use
    said = "interrupted; `pipa demo` starts anew"
    try:
        with ending_with(trainings, said):
            results = run_all(out, seed, steps)
    except Interrupted as end:  # of a training, which says how to go on with it alone
        raise Interrupted(end.number, said) from end
    seconds = time.perf_counter() - since
    write_results(out / "results.json", results, seconds)
    about = (
        f"pipa demo --seed {seed} --steps {steps}, {seconds:.0f} s on {os.cpu_count()} cores: "
        "Streets, 200 labelled game images, 400 unlabelled and 200 held-out camera images. All "
        "three start from the same weights and see the same source batches. Source-only takes "
        "three student passes per step, the control and PiPa two, and two over the smaller crops "
        "of the pair; the control learns from these by plain cross entropy, PiPa by contrast."
    )
    runs = {display_name(name): [out / name] for name in results}
    title = "From the game to the camera"
    write_report_if_possible(runs, out, title=title, about=[about])
    return comparison_table(results, title="IoU on held-out camera images, in percent")


def refuse_to_replace(out: Path) -> None:
    """Check that the files in the way are those of an earlier demo.

    Raises:
        PipaError: A folder in the way holds something else, or a report in the way is no demo's.
    """
    runs = [out / name for name in METHODS if os.path.lexists(out / name)]
    for run in runs:
        found = foreign_files(run) if (run / MARK).is_file() else [run]
        if found:
            raise PipaError("is in the way, and no demo wrote it", found[0], "Give another --out.")
    for file in (out / name for name in ("results.json", "report.html", "report.json")):
        if not runs and os.path.lexists(file):
            raise PipaError("is in the way, and no demo wrote it", file, "Give another --out.")


def trainings() -> list[BaseProcess]:
    """Return the processes of the trainings, but not the one that passes on their messages."""
    return [child for child in active_children() if not child.name.startswith("SyncManager")]


def run_all(out: Path, seed: int, steps: int) -> dict[str, Result]:
    """Train and score all methods at once, each in a process of its own with one thread.

    Networks this small gain little from a second thread, and with one thread the numbers are the
    same on any number of cores.
    """
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(METHODS), context) as pool:
        messages = manager.Queue()
        runs = {
            name: pool.submit(run_one, out / name, name, seed, steps, messages) for name in METHODS
        }
        with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[loss]}")) as bars:
            rows = {n: bars.add_task(display_name(n), total=steps, loss="") for n in METHODS}
            while not all(run.done() for run in runs.values()):
                with contextlib.suppress(queue.Empty):
                    name, step, loss = messages.get(timeout=0.5)
                    bars.update(rows[name], completed=step, loss=loss)
        return {name: run.result() for name, run in runs.items()}


def run_one(
    out: Path, name: str, seed: int, steps: int, messages: "queue.Queue[ProgressMessage]"
) -> Result:
    """Train and score one of `METHODS`, on one thread."""
    torch.set_num_threads(1)
    logging.getLogger("pipa").setLevel(logging.ERROR)  # a known warning: Streets has no trains
    clear(out)
    write_text(out / MARK, json.dumps({"seed": seed, "steps": steps}))
    callbacks = [ProgressCallback(name, messages)]
    run = run_method(out, name, seed=seed, steps=steps, callbacks=callbacks)
    result = evaluate(run.model, HELD_OUT, quiet=True)
    keep_score(out, result)
    write_report_if_possible([out], out)
    return result


def keep_score(run: Path, result: Result) -> None:
    """Make the score on the held-out images that of the run, instead of that on a few others."""
    file = run / "results.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored |= result.as_dict() | {"scored_on": HELD_OUT}
    write_text(file, json.dumps(stored, indent=1))
    result.write_confusion(run / "confusion.csv")


class ProgressCallback(Callback):
    """Sends the progress of a run to the parent process."""

    def __init__(self, name: str, messages: "queue.Queue[ProgressMessage]") -> None:
        self.name, self.messages = name, messages

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Send step and losses, every 20 steps."""
        if trainer.global_step % 20 == 0:
            losses = sorted(trainer.callback_metrics.items())
            text = " ".join(f"{k[5:]} {float(v):.2f}" for k, v in losses if k.startswith("loss/"))
            self.messages.put((self.name, trainer.global_step, text))


def run_method(
    out: Path, name: str, *, seed: int, steps: int, callbacks: Sequence[Callback] = ()
) -> Run:
    """Train one of `METHODS` on Streets; only the losses differ between them."""
    start = steps // 4  # from scratch, a network must learn something before it can teach
    options = OPTIONS | METHODS[name]
    options |= {"method.start": start, "patch.start": start, "trainer.max_steps": steps}
    options |= {"trainer.val_check_interval": max(1, start), "out": str(out), "seed": seed}
    words = [f"--{option}={as_argument(value)}" for option, value in options.items()]
    # The report is written when the run has its score.
    return train(**sections_of(words), callbacks=callbacks, report=False)


def write_results(path: Path, results: dict[str, Result], seconds: float) -> None:
    """Write `{"source_only": {"miou", "iou"}, ..., "seconds"}`, whole or not at all."""
    record: dict[str, Any] = {
        name: {"miou": result.miou, "iou": result.iou} for name, result in results.items()
    }
    write_text(path, json.dumps(record | {"seconds": round(seconds, 1)}, indent=1))
