"""Label a folder of images with Ray Data: on all cores of this machine, or on a cluster.

    pip install -e ".[ray]"
    python examples/ray_predict.py runs/mine photos --out predictions --processes 4

It writes OUT/ids/NAME.png as `pipa predict --write ids` does, each whole or not at all. Kill it and
start it again: it goes on with the images that have no output yet.
"""

import argparse
from pathlib import Path
from typing import Any

import ray

import pipa
from pipa.deploy.plan import plan
from pipa.files.images import read_image, write_png


def read(row: dict[str, Any]) -> dict[str, Any]:
    """Add the image to a row with its path."""
    return {**row, "image": read_image(Path(row["source"]))}


def write(row: dict[str, Any]) -> dict[str, Any]:
    """Write the class ids; keep only the paths, so that little travels."""
    out = Path(row["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, row["ids"])
    return {"out": row["out"]}


def main() -> None:
    """Label what has no output yet; print each file as it is written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a run's folder, or user/model on the Hub")
    parser.add_argument("inputs", nargs="+", help="images, folders, globs")
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--processes", type=int, default=2, help="processes with a network each")
    parser.add_argument("--batch", type=int, default=4, help="images in a process at a time")
    options = parser.parse_args()

    model = Path(options.model).resolve() if Path(options.model).exists() else options.model
    out = options.out.resolve()
    jobs = [job for job in plan(options.inputs, out).jobs if not job.is_video]
    rows = [
        {"source": str(job.source.resolve()), "out": str(job.output(out, "ids", ".png"))}
        for job in jobs
    ]
    left = [row for row in rows if not Path(row["out"]).exists()]
    print(f"{len(left)} of {len(rows)} images to label", flush=True)
    if not left:
        return
    ray.init(include_dashboard=False, logging_level="ERROR")
    labelled = (
        ray.data.from_items(left, override_num_blocks=-(-len(left) // options.batch))
        .map(read)
        .map_batches(
            pipa.Predictor,
            fn_constructor_args=[str(model)],
            batch_size=options.batch,
            concurrency=options.processes,
        )
        .map(write)
    )
    for row in labelled.iter_rows():
        print(row["out"], flush=True)


if __name__ == "__main__":
    main()
