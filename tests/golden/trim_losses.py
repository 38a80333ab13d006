"""Cut `pixel_contrast`, `patch_contrast` and `dacs_parts` from the full reference numbers.

python tests/golden/trim_losses.py PATH/TO/golden/open

Inputs that follow from a name (tests/recipe.py) are left out; gradients of the pixel contrast are
kept at its anchors alone (they are 0 elsewhere, which is checked), of the patch contrast at every
second row and column. The full files and what made them are described in their README.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CASES = ("fresh", "second", "full", "chunk")
PLANES = ("label1", "label2", "conf1", "conf2")
SMALL = ("ul1", "br1", "ul2", "br2", "flip", "sel1", "sel2", "loss1", "loss2", "loss_unsup")
DACS = ("class_masks", "pseudo_weight", "ema", "downscale_label_ratio", "fd", "lr")


def save(name: str, arrays: dict[str, np.ndarray], meta: dict) -> None:
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    (HERE / f"{name}.meta.json").write_text(json.dumps(meta, separators=(",", ":")) + "\n")


def read(source: Path, name: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(source / f"{name}.npz") as file:
        return dict(file), json.loads((source / f"{name}.meta.json").read_text())


def pixel(source: Path) -> None:
    arrays, meta = read(source, "pixel_contrast")
    kept = {key: value for key, value in arrays.items() if key.startswith("D/")}
    for case in "ABC":
        for name in ("label", "pred", "loss", "anchor_index", "anchor_class"):
            kept[f"{case}/{name}"] = arrays[f"{case}/{name}"]
        # Rows of the anchors in the order of `anchor_index`; the image steps when a class repeats.
        classes, place = arrays[f"{case}/anchor_class"], arrays[f"{case}/anchor_index"]
        image = np.concatenate([[0], np.cumsum(np.diff(classes.astype(int)) <= 0)])
        rows = np.moveaxis(arrays[f"{case}/grad"], 1, -1)
        rows = rows.reshape(len(rows), -1, rows.shape[-1])
        kept[f"{case}/grad"] = rows[image[:, None], place]
        assert math.isclose(np.abs(rows).sum(), np.abs(kept[f"{case}/grad"]).sum(), rel_tol=1e-6)
    save("pixel_contrast", kept, {key: meta[key] for key in ("cases", "recipe", "source")})


def patch(source: Path) -> None:
    arrays, meta = read(source, "patch_contrast_daformer")
    twin, _ = read(source, "patch_contrast_hrda")
    kept = {}
    for case in CASES:
        for name in (*PLANES, *SMALL):
            kept[f"{case}/{name}"] = arrays[f"{case}/{name}"]
            assert (
                name == "loss_unsup" or (arrays[f"{case}/{name}"] == twin[f"{case}/{name}"]).all()
            )
        for name in ("grad_o1", "grad_o2"):
            gradient = arrays[f"{case}/{name}"]
            kept[f"{case}/{name}"] = gradient if case == "chunk" else gradient[..., 1::2, 1::2]
        for i in range(meta["cases"][case]["bank_before"]):
            kept[f"{case}/bank_label{i}"] = arrays[f"{case}/bank_label{i}"]
        kept[f"{case}/loss_unsup_hrda"] = twin[f"{case}/loss_unsup"]
    save("patch_contrast", kept, {key: meta[key] for key in ("cases", "constants", "recipe")})


def dacs(source: Path) -> None:
    arrays, meta = read(source, "dacs_parts")
    wanted = ("classmix/", "pseudo/", "ratio/", "fd/")
    kept = {k: v for k, v in arrays.items() if k.startswith(wanted) and "__" not in k}
    record = {key: meta["record"][key] for key in DACS}
    record["groups"] = {}
    for name in ("DAFormer_mitb5", "HRDA_mitb5"):
        shapes = json.loads((source / f"keys/ckpt_{name}.json").read_text())["keys"]
        size = {key: math.prod(shape) for key, shape, *_ in shapes}
        groups: dict[str, list[int]] = {}
        for key, lr, decay, _ in json.loads((source / f"optim/groups_{name}.json").read_text())[
            "rows"
        ]:
            if key.startswith("model."):
                group = groups.setdefault(f"{lr:.1e}/{decay}", [0, 0])
                group[0], group[1] = group[0] + 1, group[1] + size[key]
        record["groups"][name] = groups
    save("dacs_parts", kept, record)


if __name__ == "__main__":
    for part in (pixel, patch, dacs):
        part(Path(sys.argv[1]))
