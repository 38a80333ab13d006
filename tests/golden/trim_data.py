"""Cut the reference numbers for the tests of `pipa.data` from the full ones.

python tests/golden/trim_data.py PATH/TO/golden/open
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LABELS = ("gta", "synthia", "cityscapes", "CLASSES", "PALETTE")
RECORDS = ("jitter", "blur", "blur_kernel_sizes", "valid_pseudo_mask", "resize_sizes", "resize")


def main(source: Path) -> None:
    labels = json.loads((source / "labels.json").read_text())
    kept = {name: labels[name] for name in LABELS}
    kept |= {name: labels["synthia_eval"][name] for name in ("classes16", "classes13")}
    record = json.loads((source / "dacs_parts.meta.json").read_text())["record"]
    kept |= {name: record[name] for name in RECORDS}
    kept["random_crop"] = record["random_crop"]
    kept["rcs"] = {name: record["rcs"][name] for name in ("table", "probs", "draws", "rule")}
    (HERE / "data.json").write_text(json.dumps(kept, separators=(",", ":")))
    arrays = np.load(source / "dacs_parts.npz")
    wanted = ("jitter/", "blur/", "resize/", "crop/")
    chosen = {n: arrays[n] for n in arrays.files if n.startswith(wanted) and "norm" not in n}
    np.savez_compressed(HERE / "data.npz", **chosen)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
