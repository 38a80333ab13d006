"""Where does contrast have something to do? Its gain against gap, labelled images and crop size.

python benchmarks/regime.py [--seeds 0,1,2] [--jobs 2] [--out runs/regime]

At each point two rows of `ablation/contrast_rows` are trained on Streets by `pipa ablate`: the
control and the control with PiPa's losses. A point differs in one thing from the base: gap 0.5,
100 labelled images, crops of 64 x 96 in batches of 8 (the largest crops in batches of 4, to save
time). The same command goes on where it stopped. Prints a table and draws `OUT/regime.svg`: each
seed's difference, their mean, and Student's 95 % interval.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import yaml
from matplotlib.figure import Figure

from pipa.evaluation.compare import Difference
from pipa.evaluation.plots import INK, PALETTE, STYLE, dress, encode
from pipa.evaluation.tables import said
from pipa.files.installed import experiment_file

CONTROL, CONTRAST = "control", "control+PiPa"


@dataclass(frozen=True)
class Point:
    """One setting of the study."""

    gap: float = 0.5
    source: int = 100
    crop: tuple[int, int] = (64, 96)
    batch: int = 8

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"gap{self.gap}_source{self.source}_crop{self.crop[0]}x{self.crop[1]}"

    def options(self) -> list[str]:
        """What `pipa ablate` is told."""
        streets = f"gap={self.gap},source={self.source}"
        return [
            f"--data.source=streets:{streets}",
            f"--data.target=streets:{streets}",
            f"--data.validation=streets/test:{streets}",
            f"--data.crop=[{self.crop[0]},{self.crop[1]}]",
            f"--data.batch_size={self.batch}",
        ]


BASE = Point()
PANELS = {
    "gap of the domains": {f"{v:g}": replace(BASE, gap=v) for v in (0.35, 0.5, 0.65)},
    "labelled images": {str(v): replace(BASE, source=v) for v in (25, 100, 400)},
    "crop": {
        "32x48": replace(BASE, crop=(32, 48)),
        "64x96": BASE,
        "96x128": replace(BASE, crop=(96, 128), batch=4),
    },
}


def train(point: Point, out: Path, seeds: str, jobs: int) -> None:
    """Do the runs of one point that are not done yet."""
    rows = yaml.safe_load(Path(experiment_file("ablation/contrast_rows")).read_text())
    file = out / "rows.yaml"
    file.write_text(yaml.safe_dump({name: rows[name] for name in (CONTROL, CONTRAST)}))
    command = [sys.executable, "-m", "pipa", "ablate", "ablation/streets", *point.options()]
    command += ["--rows", str(file), "--seeds", seeds, "--against", CONTROL]
    subprocess.run([*command, "--jobs", str(jobs), "--out", str(out / point.folder)], check=True)


def gain(folder: Path) -> tuple[float, Difference]:
    """Return the control's mean mIoU in percent over the shared seeds, and what contrast adds."""
    rows = json.loads((folder / "table.json").read_text())["rows"]
    control, contrast = rows[CONTROL]["miou"], rows[CONTRAST]["miou"]
    by_seed = {int(seed): contrast[seed] - control[seed] for seed in control if seed in contrast}
    shared = statistics.mean(control[str(seed)] for seed in by_seed)
    return shared, Difference(CONTRAST, CONTROL, by_seed)


def draw(found: dict[Point, tuple[float, Difference]], path: Path) -> None:
    """Draw the gain at each point, one panel for each thing that varies."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.9), layout="constrained")
        for axes, (title, points) in zip(
            figure.subplots(1, 3, sharey=True), PANELS.items(), strict=True
        ):
            dress(axes, title)
            axes.axhline(0, color=INK, linewidth=0.8)
            for place, point in enumerate(points.values()):
                control, added = found[point]
                for value in added.values:
                    axes.plot(place, value, "o", color=PALETTE["light"][0], ms=4)
                axes.plot(place, added.mean, "D", color=PALETTE["light"][2], ms=7)
                if added.interval:
                    axes.vlines(place, *added.interval, color=PALETTE["light"][2])
                axes.annotate(
                    f"{control:.1f}",
                    (place, 0.02),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    fontsize=8,
                )
            axes.set_xlim(-0.5, len(points) - 0.5)
            axes.set_xticks(range(len(points)), list(points))
        low, high = figure.axes[0].get_ylim()
        figure.axes[0].set_ylim(low - 0.1 * (high - low), high)  # room for the control's mIoU
        figure.axes[0].set_ylabel("control+PiPa minus control,\npoints of mIoU")
        path.write_bytes(encode(figure))


def main() -> None:
    """Train what is missing, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/regime"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    points = list(dict.fromkeys(p for panel in PANELS.values() for p in panel.values()))
    for point in points:
        train(point, arguments.out, arguments.seeds, arguments.jobs)
    found = {point: gain(arguments.out / point.folder) for point in points}
    print("| gap | labelled images | crop | control | control+PiPa minus control |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for point, (control, added) in found.items():
        crop = f"{point.crop[0]}x{point.crop[1]}"
        print(f"| {point.gap:g} | {point.source} | {crop} | {control:.1f} | {said(added)} |")
    picture = arguments.out / "regime.svg"
    draw(found, picture)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
