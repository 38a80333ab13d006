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

from pipa.data.images import read_image, read_label
from pipa.data.module import UDAData
from pipa.evaluate.evaluate import evaluate
from pipa.evaluate.plots import Series
from pipa.evaluate.report import GalleryRow, RunRecord, write_report
from pipa.evaluate.scores import Result, comparison_table, display_name
from pipa.train import MethodOptions, Run, StudentOptions, train
from pipa.uda.optim import Optim
from pipa.uda.pipa_terms import PatchTerm, PixelTerm

SELF_TRAINING = MethodOptions(pixel=False, patch=False, jitter_source=True, momentum=0.99)
METHODS = {
    "source_only": MethodOptions(name="source_only", jitter_source=True, passes=4),
    "self_training": replace(SELF_TRAINING, views=1.0),
    "pipa": replace(SELF_TRAINING, pixel=True, patch=True),
}
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
    streets = next(iter(runs.values())).data.root
    results = {
        name: evaluate(run.student, f"folder:{streets / 'test'}") for name, run in runs.items()
    }
    seconds = time.perf_counter() - since
    write_results(out / "results.json", results, seconds)
    records = {
        name: RunRecord(display_name(name), results[name], read_curves(out / name)) for name in runs
    }
    facts = {
        "Command": f"pipa demo --seed {seed} --steps {steps}",
        "Data": "Streets: 200 labelled game images, 400 unlabelled and 200 held-out camera images",
        "Student passes": "four per step for each method, on the same source batches",
        "Time": f"{seconds:.0f} s on {os.cpu_count()} cores",
    }
    write_report(
        out / "report.html",
        "From the game to the camera",
        records,
        gallery(streets / "test", runs),
        facts,
        labels=runs["pipa"].labels,
    )
    return comparison_table(results, title="IoU on held-out camera images, in percent")


def run_method(out: Path, name: str, *, seed: int, steps: int) -> Run:
    """Train one of `METHODS` on Streets, the settings all the same but for its losses."""
    shutil.rmtree(out, ignore_errors=True)
    method = replace(METHODS[name], start=steps // 3)
    later = {"start": steps // 3, "warm_up": steps // 10}
    return train(
        out,
        data=UDAData(
            format="streets",
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
        pixel=PixelTerm(width=64, dim=64),
        patch=PatchTerm(width=64, dim=64, queries=800, memory=1024, **later),
        optim=Optim(lr=2e-3, head=1.0, warm_up=50, power=0.9, clip=5.0),
        trainer={"max_steps": steps, "accelerator": "cpu", "enable_model_summary": False},
        seed=seed,
    )


def write_results(path: Path, results: dict[str, Result], seconds: float) -> None:
    """Write `{"source_only": {"miou", "iou"}, ..., "seconds"}`, whole or not at all."""
    record: dict[str, Any] = {
        name: {"miou": result.miou, "iou": result.iou} for name, result in results.items()
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record | {"seconds": round(seconds, 1)}, indent=1))
    part.replace(path)


def read_curves(out: Path) -> dict[str, Series]:
    """The logged losses and validation mIoU of a run, against its steps."""
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (out / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and (name == "miou" or name.startswith("loss/")):
                    series[name].append((float(row["step"]), float(value)))
    return dict(series)


def gallery(folder: Path, runs: dict[str, Run]) -> list[GalleryRow]:
    """A few held-out images, their truth, and what source-only and PiPa made of them."""
    images = sorted((folder / "images").iterdir())
    rows = []
    for path in images[:: len(images) // GALLERY][:GALLERY]:
        image = read_image(path)
        truth = read_label(folder / "labels" / f"{path.stem}.png")
        shown = {name: runs[name].student.predict(image) for name in ("source_only", "pipa")}
        rows.append(GalleryRow(image, truth, shown))
    return rows
