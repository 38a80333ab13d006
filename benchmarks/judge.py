"""Is `pipa judge` right? Compare it with the truth on finished runs of `pipa ablate`.

python benchmarks/judge.py runs/camvid runs/nuclei --against source-only matched --out judge.csv

Every model of an ablation is judged on unlabelled target images and compared with the model of the
same seed in each row of `--against` (of the row's first seed, where that one has not run), which
saw no pseudo-labels. The truth is the mIoU that the run measured. For each ablation, this prints
the rank correlation of the score with mIoU over all runs, and for each of these rows, over the runs
whose true difference is over `--least` points, for how many the verdict is right, undecided and
wrong. With validations during training and `--judge`, it prints how far the checkpoint that the
judge would choose is from the best one. The file has a line for each run.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from pipa.data.unlabelled import each_image, source_pixels
from pipa.evaluation.judge import judge
from pipa.evaluation.runs import run_data
from pipa.models.saved import adapted_folder, load_segmenter


def runs_of(ablation: Path) -> dict[tuple[str, int], Path]:
    """Return the finished runs of an ablation by row and seed."""
    found = sorted(ablation.glob("*/seed*/results.json"))
    return {(p.parent.parent.name, int(p.parent.name[4:])): p.parent for p in found}


def truth(run: Path) -> float:
    """Return the measured mIoU of a run, in percent."""
    return float(json.loads((run / "results.json").read_text())["miou"])


def best_checkpoint(run: Path) -> float | None:
    """Return how many points the judge's choice among the validations is below the best one."""
    scores: dict[int, float] = {}
    mious: dict[int, float] = {}
    with (run / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, into in (("judge/score", scores), ("miou", mious)):
                if row.get(name):
                    into[int(row["step"])] = float(row[name])
    steps = [(s, min(mious, key=lambda m: abs(m - s))) for s in scores] if mious else []
    if len(steps) < 3:
        return None
    chosen = max(steps, key=lambda pair: scores[pair[0]])[1]
    return max(mious.values()) - mious[chosen]


def judged(ablation: Path, against: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Judge all models of one ablation; return a line for each."""
    runs = runs_of(ablation)
    data = run_data(next(iter(runs.values())))
    images = list(each_image(data["target"], count, resize=data.get("target_resize")))
    shares = source_pixels(data["source"], classes=data.get("classes"))
    models = {run: load_segmenter(adapted_folder(folder)) for run, folder in runs.items()}
    found = judge({name_of(*run): model for run, model in models.items()}, images, shares)
    lines = []
    for (row, seed), folder in runs.items():
        line: dict[str, Any] = {"ablation": ablation.name, "row": row, "seed": seed}
        line |= {"miou": truth(folder), "score": found.figures(name_of(row, seed)).score}
        line["below the best checkpoint"] = best_checkpoint(folder)
        for base in against:
            seeds = sorted(s for name, s in runs if name == base)
            other = seed if seed in seeds else next(iter(seeds), None)
            if row not in against and other is not None:
                line[f"minus {base}"] = line["miou"] - truth(runs[base, other])
                verdict = found.verdict(name_of(row, seed), name_of(base, other))
                line[f"verdict against {base}"] = verdict.outcome
        lines.append(line)
    return lines


def name_of(row: str, seed: int) -> str:
    """Return the name of a model."""
    return f"{row}/{seed}"


def said(lines: Sequence[dict[str, Any]], against: Sequence[str], least: float) -> str:
    """Say how score and verdicts agree with the truth."""
    rank = spearmanr([line["score"] for line in lines], [line["miou"] for line in lines])[0]
    parts = [f"{len(lines)} runs, rank correlation {rank:.2f}"]
    for base in against:
        pairs = [
            (x[f"minus {base}"], x[f"verdict against {base}"])
            for x in lines
            if f"minus {base}" in x
        ]
        clear = [(d, outcome) for d, outcome in pairs if abs(d) > least]
        right = sum(outcome == ("better" if d > 0 else "worse") for d, outcome in clear)
        undecided = sum(outcome == "not distinguishable" for _, outcome in clear)
        harmed = sum(d < 0 for d, _ in clear)
        parts.append(
            f"against {base}: {len(clear)} over {least:g} points ({harmed} of them worse), "
            f"{right} right, {undecided} undecided, {len(clear) - right - undecided} wrong"
        )
    gaps = [gap for line in lines if (gap := line["below the best checkpoint"]) is not None]
    if gaps:
        parts.append(
            f"below the best checkpoint: median {np.median(gaps):.1f}, {max(gaps):.1f} at most"
        )
    return "; ".join(parts)


def main() -> None:
    """Judge the models of each ablation, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ablations", type=Path, nargs="+")
    about = "the rows of the source-only models"
    parser.add_argument("--against", nargs="+", default=["matched"], help=about)
    parser.add_argument("--least", type=float, default=2.0, help="true difference that counts")
    parser.add_argument("--count", type=int, default=32, help="unlabelled images")
    parser.add_argument("--out", type=Path, help="write a line for each run to this CSV file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for ablation in given.ablations:
        found = judged(ablation, given.against, given.count)
        print(f"{ablation.name}: {said(found, given.against, given.least)}", flush=True)
        lines += found
    if given.out:
        names = list(dict.fromkeys(name for line in lines for name in line))
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
