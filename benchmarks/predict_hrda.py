"""Time and peak memory of HRDA with MiT-B5 on one 2048x1024 image, windows in chunks.

python benchmarks/predict_hrda.py [--name hrda_mit_b5] [--chunk 1] [--detail-chunk 4] [--threads 2]
"""

import argparse
import resource
import time

import numpy as np
import torch

import pipa


def main() -> None:
    """Predict once and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="hrda_mit_b5")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--chunk", type=int, default=1, help="windows of 1024 at a time")
    parser.add_argument("--detail-chunk", type=int, default=4, help="details of 512 at a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chunks = {"chunk": options.chunk}
    if options.name.startswith("hrda"):
        chunks["detail_chunk"] = options.detail_chunk
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = pipa.create_segmenter(options.name, 19, **chunks).to(device).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (options.height, options.width, 3), dtype=np.uint8)
    before = peak(device)
    start = time.perf_counter()
    ids = model.predict(image)
    seconds = time.perf_counter() - start
    assert ids.shape == image.shape[:2]
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(
        f"{options.name} ({count:.1f} M parameters), {options.width}x{options.height} on {device}, "
        f"{options.threads} threads, chunk {options.chunk}/{options.detail_chunk}: "
        f"{seconds:.1f} s, peak {peak(device):.2f} GiB ({before:.2f} GiB before)"
    )


def peak(device: str) -> float:
    """Most memory held so far, GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
