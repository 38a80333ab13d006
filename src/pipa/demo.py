"""`pipa demo`: source-only, self-training and PiPa on Streets, with the same of everything.

All three start from the same weights and see the same source batches, with the same colour
augmentation and four student passes per step; they are scored on camera images that none has seen.
"""

import csv
import json
import os
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pipa.data.module import UDAData
from pipa.data.opening import open_labelled
from pipa.evaluate.evaluate import evaluate
from pipa.evaluate.plots import Series
from pipa.evaluate.report import GalleryRow, RunRecord, write_report
from pipa.evaluate.scores import Result, comparison_table, display_name, write_whole
from pipa.train import MethodOptions, Run, StudentOptions, train
from pipa.uda.optim import Optim
from pipa.uda.pipa_terms import PatchTerm, PixelTerm

SELF_TRAINING = MethodOptions(pixel=False, patch=False, jitter_source=True, momentum=0.99)
METHODS = {
    "source_only": MethodOptions(name="source_only", jitter_source=True, passes=4),
    "self_training": replace(SELF_TRAINING, views=1.0),
    "pipa": replace(SELF_TRAINING, pixel=True, patch=True),
}
HELD_OUT = "streets/test"
GALLERY = 6


def demo(out: Path, *, seed: int = 0, steps: int = 1200) -> Table:
    """Train and score the three methods; write `results.json` and `report.html` into `out`.

    Args:
        out: Folder for the report and the three runs; an earlier demo's runs are replaced.
        seed: Decides the network's first weights and every draw.
        steps: Of each training.

    Returns:
        The table of all three: IoU of each class, mIoU, gain.
    """
    since = time.perf_counter()
    runs = {name: run_method(out / name, name, seed=seed, steps=steps) for name in METHODS}
    results = {name: evaluate(run.student, HELD_OUT) for name, run in runs.items()}
    seconds = time.perf_counter() - since
    write_results(out / "results.json", results, seconds)
    records = {
        name: RunRecord(display_name(name), results[name], read_curves(out / name)) for name in runs
    }
    facts = {
        "Command": f"pipa demo --seed {seed} --steps {steps}",
        "Data": "Streets: 200 labelled game images, 400 unlabelled and 200 held-out camera images",
        "Budget": "four student passes per step for each method, on the same source batches",
        "Time": f"{seconds:.0f} s on {os.cpu_count()} cores",
    }
    shown = gallery(runs)
    title = "From the game to the camera"
    write_report(out / "report.html", title, records, shown, facts, labels=runs["pipa"].labels)
    return comparison_table(results, title="IoU on held-out camera images, in percent")


def run_method(out: Path, name: str, *, seed: int, steps: int) -> Run:
    """Train one of `METHODS` on Streets, the settings all the same but for its losses."""
    shutil.rmtree(out, ignore_errors=True)
    method = replace(METHODS[name], start=steps // 3)
    return train(
        out,
        data=UDAData(
            source="streets",
            target="streets",
            validation="streets",
            crop=(96, 128),
            pair_crop=(96, 128),
            batch_size=4,
            workers=0,
            seed=seed,
        ),
        student=StudentOptions(name="small"),
        method=method,
        pixel=PixelTerm(width=64, dim=64, anchors=512),
        patch=PatchTerm(width=64, dim=64, queries=400, memory=1024, start=steps // 3),
        optim=Optim(lr=2e-3, head=1.0, warm_up=50, power=0.9, clip=5.0),
        trainer={
            "max_steps": steps,
            "accelerator": "cpu",
            "val_check_interval": max(1, steps // 4),
            "limit_val_batches": 50,
            "enable_model_summary": False,
        },
        seed=seed,
    )


def write_results(path: Path, results: dict[str, Result], seconds: float) -> None:
    """Write `{"source_only": {"miou", "iou"}, ..., "seconds"}`, whole or not at all."""
    record: dict[str, Any] = {
        name: {"miou": result.miou, "iou": result.iou} for name, result in results.items()
    }
    write_whole(path, json.dumps(record | {"seconds": round(seconds, 1)}, indent=1))


def read_curves(out: Path) -> dict[str, Series]:
    """The logged losses and validation mIoU of a run, against its steps."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (out / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and (name == "miou" or name.startswith("loss/")):
                    series[name].append((float(row["step"]), float(value)))
    return dict(series)


def gallery(runs: dict[str, Run]) -> list[GalleryRow]:
    """A few held-out images, their truth, and what source-only and PiPa made of them."""
    images, _ = open_labelled(HELD_OUT)
    rows = []
    for index in range(0, len(images), len(images) // GALLERY)[:GALLERY]:
        sample = images.load(index)
        seen = {name: runs[name].student.predict(sample.image) for name in ("source_only", "pipa")}
        rows.append(GalleryRow(sample.image, sample.label, seen))
    return rows
