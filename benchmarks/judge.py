"""Is `pipa judge` right? Compare it with the truth on finished runs of `pipa ablate`.

python benchmarks/judge.py runs/camvid runs/nuclei --against matched --out judge.json

Every model of an ablation is judged on unlabelled target images and compared with the model of the
same seed in the row `--against`, which saw no target labels and no pseudo-labels. The truth is the
mIoU that the run measured. For each ablation, this prints the rank correlation of the score with
mIoU over all runs, and of the runs whose true difference is over `--least` points the share for
which the verdict is right, undecided and wrong. With validations during training and `--judge`, it
prints how far the checkpoint that the judge would choose is from the best one.
"""

import argparse
import csv
import json
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


def judged(ablation: Path, against: str, least: float, count: int) -> dict[str, Any]:
    """Judge all models of one ablation."""
    runs = runs_of(ablation)
    data = run_data(next(iter(runs.values())))
    images = list(each_image(data["target"], count, resize=data.get("target_resize")))
    shares = source_pixels(data["source"], classes=data.get("classes"))
    models = {
        f"{row}/{seed}": load_segmenter(adapted_folder(run)) for (row, seed), run in runs.items()
    }
    found = judge(models, images, shares)
    true = {f"{row}/{seed}": truth(run) for (row, seed), run in runs.items()}
    score = {name: found.figures(name).score for name in models}
    verdicts = {}
    for row, seed in runs:
        if row != against and (against, seed) in runs:
            name, base = f"{row}/{seed}", f"{against}/{seed}"
            verdicts[name] = (true[name] - true[base], found.verdict(name, base).outcome)
    clear = [(d, outcome) for d, outcome in verdicts.values() if abs(d) > least]
    right = sum(outcome == ("better" if d > 0 else "worse") for d, outcome in clear)
    open_ = sum(outcome == "not distinguishable" for _, outcome in clear)
    gaps = [gap for gap in map(best_checkpoint, runs.values()) if gap is not None]
    return {
        "runs": len(runs),
        "spearman": float(spearmanr([score[m] for m in models], [true[m] for m in models])[0]),
        "clear": len(clear),
        "right": right,
        "undecided": open_,
        "wrong": len(clear) - right - open_,
        "worse accepted": sum(d < 0 and outcome == "better" for d, outcome in clear),
        "below the best checkpoint, median": float(np.median(gaps)) if gaps else None,
        "models": {m: {"score": score[m], "miou": true[m]} for m in models},
        "verdicts": verdicts,
    }


def main() -> None:
    """Judge the models of each ablation, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ablations", type=Path, nargs="+")
    parser.add_argument("--against", default="matched", help="the row of the source-only models")
    parser.add_argument("--least", type=float, default=2.0, help="true difference that counts")
    parser.add_argument("--count", type=int, default=32, help="unlabelled images")
    parser.add_argument("--out", type=Path, help="write everything to this JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for ablation in given.ablations:
        result = judged(ablation, given.against, given.least, given.count)
        results[ablation.name] = result
        short = {k: v for k, v in result.items() if k not in ("models", "verdicts")}
        print(ablation.name, " ".join(f"{k}: {v}" for k, v in short.items()), flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
