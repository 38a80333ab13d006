"""Images per CPU second of `pipa predict`, beside a plain loop with the same network.

python benchmarks/inference.py [--images 12] [--repeats 3] [--long 2000]
    [--json runs/benchmarks/inference.json]

Both read PNG of 512 x 1024, label them with SegFormer MiT-B0 (19 classes, random weights) and write
class ids as PNG, on one thread; the plain loop is OpenCV, `SegformerForSemanticSegmentation`,
interpolation and argmax. Rounds of both alternate. Then `--long` small images are labelled, and
the resident memory after a tenth of them is compared with that after all.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import report
from torch.nn import functional as F

import pipa
from pipa.deploy.predict import predict
from pipa.models.segmenter import IMAGENET_MEAN, IMAGENET_STD


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write blurred noise with a little grain, which compresses like a photo."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        coarse = rng.integers(0, 256, (8, 16, 3), np.uint8)
        image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
        image = np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{i:05}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


def plain_loop(paths: list[Path], out: Path) -> Callable[[], None]:
    """Build the loop that the documentation of transformers shows, without its image processor."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    out.mkdir()

    def run() -> None:
        for path in paths:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            pixels = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std
            with torch.inference_mode():
                logits = model(pixel_values=pixels[None]).logits
                logits = F.interpolate(logits, image.shape[:2], mode="bilinear")
                ids = logits.argmax(1)[0].to(torch.uint8).numpy()
            cv2.imwrite(str(out / path.name), ids)

    return run


def ours(name: str, paths: list[Path], out: Path, batch: int) -> Callable[[], None]:
    """Build the same with `predict`."""
    torch.manual_seed(0)
    model = pipa.create_segmenter(name, 19).eval()

    def run() -> None:
        for _ in predict(model, paths, out, kinds=["ids"], batch=batch):
            pass

    return run


def speeds(folder: Path, images: int, repeats: int) -> list[dict[str, Any]]:
    """Measure images per CPU second, of all threads of this process."""
    paths = write_images(folder / "in", images, (512, 1024))
    loops = {"transformers": plain_loop(paths, folder / "plain")}
    for batch in (1, 2):
        name = f"pipa, batch {batch}"
        loops[name] = ours("segformer_mit_b0", paths, folder / f"ours{batch}", batch)
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats + 1):
        for name, run in loops.items():
            since = time.process_time()
            run()
            found[name].append(images / (time.process_time() - since))
    speed = {name: statistics.median(values[1:]) for name, values in found.items()}
    base = speed["transformers"]
    return [
        {"loop": name, "images / CPU s": value, "ratio": value / base}
        for name, value in speed.items()
    ]


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Peak resident memory, MiB, after a tenth of many images and after all."""
    paths = write_images(folder / "many", count, (96, 128))
    model = pipa.create_segmenter("small", 19).eval()
    marks = []
    for i, _ in enumerate(predict(model, paths, folder / "out", kinds=["ids"]), start=1):
        if i in (count // 10, count):
            marks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"loop": f"{count} images", "peak MiB": marks}


def main() -> None:
    """Measure, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/inference.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as given:
        # first, since the peak of the large images would hide that of the small ones
        flat = memory(Path(given), options.long)
        rows = speeds(Path(given), options.images, options.repeats)
    title = "SegFormer MiT-B0 at 512 x 1024, PNG to PNG, one thread"
    rows = [row | flat | {"loop": row["loop"]} for row in rows]
    report(title, ("loop", "images / CPU s", "ratio"), rows, options.json)
    early, late = flat["peak MiB"]
    print(f"peak memory after {options.long // 10} images {early:.0f} MiB, ", end="")
    print(f"after {options.long} {late:.0f} MiB")


if __name__ == "__main__":
    main()
