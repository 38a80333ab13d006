"""Cut `trajectories.json` from the full reference numbers.

python tests/golden/trim_trajectories.py PATH/TO/golden/open

Whole training steps of the authors' code: what each step lost and what it left in some tensors. The
runs in float64 are the truth; where there is only one in float32, its losses alone are kept. What
their patch loss did (`late`) is left out: it trained no network, so ours has no counterpart.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS = {
    "daformer": ("traj_daformer", "imnet_other"),
    "margins": ("traj_daformer", "ignore_margins"),
    "hrda": ("traj_hrda", "imnet_other"),
    "pipa_daformer": ("traj_pipa_daformer", "imnet_other"),
    "pipa_hrda": ("traj_pipa_hrda", "imnet_other"),
}
DRAWN = ("lr", "mix_classes", "boxes", "mixed_label_hist", "mixed_weight_mean")
LEFT = (
    "student_mean_abs",
    "student_sum",
    "student_delta_mean_abs",
    "teacher_mean_abs",
    "teacher_sum",
    "teacher_delta_mean_abs",
    "grad_mean_abs",
    "student_bn_running_mean_abs",
    "teacher_bn_running_mean_abs",
)


def trim(source: Path, file: str, variant: str) -> dict:
    content = json.loads((source / f"{file}.json").read_text())
    run = content["variants"][variant]
    exact = run["fp64_iterations"] is not None
    steps = []
    for step in run["fp64_iterations"] or run["iterations"]:
        losses = {name: loss for name, loss in step["losses"].items() if "acc_seg" not in name}
        left = {key: step[key] for key in LEFT} if exact else {}
        steps.append({"losses": losses} | {k: step[k] for k in DRAWN if k in step} | left)
    return {"settings": run["settings"], "optimizer": content["optimizer"], "steps": steps}


if __name__ == "__main__":
    found = {name: trim(Path(sys.argv[1]), *where) for name, where in RUNS.items()}
    (HERE / "trajectories.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
