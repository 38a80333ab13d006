"""Cut the reference numbers for the tests of models from the full ones.

python tests/golden/trim_models.py PATH/TO/golden/open

An array keeps every `step`-th of its values in C order, after the `stride` that it had already;
both are in the meta file. The full files and what made them are described in their README.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MOST = 3000
KEPT = (
    "input",
    "weights",
    "odd",
    "lowvar",
    "source",
    "params",
    "train",
    "crop_bbox",
    "inputs",
    "notes",
)


def trim(source: Path, name: str, only: str = "") -> None:
    meta = json.loads((source / f"{name}.meta.json").read_text())
    kept, arrays = {}, {}
    with np.load(source / f"{name}.npz") as file:
        for key in meta["arrays"]:
            # float32 leaves a gradient of the first layer uncertain by 2e-3; its mean is not
            if not key.startswith(only) or "grad_patch" in key:
                continue
            values = file[key]
            # odd, so that it does not beat with rows of even length
            step = values.size // MOST | 1 if values.size > MOST else 1
            kept[key] = values.ravel()[::step]
            arrays[key] = {"step": step, "stride": meta["arrays"][key].get("stride", "[...]")}
    np.savez_compressed(HERE / f"{name}.npz", **kept)
    small = {"arrays": arrays} | {k: meta[k] for k in KEPT if k in meta}
    (HERE / f"{name}.meta.json").write_text(json.dumps(small, indent=1) + "\n")


def keys(source: Path) -> None:
    """Names and shapes of the five kinds of checkpoints, and of the networks that others fill."""
    found = {}
    for file in sorted((source / "keys").glob("*.json")):
        content = json.loads(file.read_text())
        rows = content["keys"] if isinstance(content, dict) else content
        found[file.stem] = [row[:2] for row in rows]
    data = json.dumps(found, separators=(",", ":")).encode()
    (HERE / "checkpoint_keys.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    for each in ("mit", "daformer", "hrda"):
        trim(Path(sys.argv[1]), each)
    for each in ("pipa_model_daformer", "pipa_model_hrda"):
        trim(Path(sys.argv[1]), each, only="eval/encode_decode")
    keys(Path(sys.argv[1]))
