"""Make three further targets out of one: its images at night, in fog, and through another sensor.

python benchmarks/camvid_pairs.py data/camvid data/camvid_night night

Copies a data set of `train/images` and `val/{images,labels}`; every image is changed by photometric
operations whose strength is drawn for each image from its name, labels stay. The pairs night, fog
and sensor of docs/results.md are made so; they are CamVid's images, and no photographs of a night.
"""

import argparse
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np


def night(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken by a gamma, tint towards blue, light the road ahead, and add the sensor's noise."""
    h, w = image.shape[:2]
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w])[:, None, None]
    lamps = np.exp(-(((x - 0.5) / 0.25) ** 2) - ((y - 0.8) / 0.2) ** 2)[..., None]
    light = image ** rng.uniform(1.3, 1.7) * rng.uniform(0.35, 0.55)
    light = light * np.array([0.75, 0.85, 1.1]) * (1 + 1.5 * lamps * np.array([1.0, 0.95, 0.8]))
    return light + rng.normal(0, rng.uniform(0.02, 0.04), image.shape)


def fog(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mix with the light of the air, the more the farther: distance grows towards the horizon."""
    h = image.shape[0]
    below = np.clip((np.arange(h) / h - 0.45) / 0.55, 0.2, 1)[:, None, None]
    clear = np.exp(-rng.uniform(0.2, 0.4) / below)
    air = rng.uniform(0.72, 0.85) * np.array([0.98, 1.0, 1.02])
    return cv2.GaussianBlur(image, (0, 0), 0.8) * clear + air * (1 - clear)


def sensor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mix the channels, bend the tone curve, darken the corners, blur, and compress the file."""
    h, w = image.shape[:2]
    mixing = np.array([[0.7, 0.3, 0.0], [0.15, 0.6, 0.25], [0.05, 0.35, 0.6]])
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    corners = 1 - rng.uniform(0.3, 0.5) * ((x**2 + y**2) / 2)[..., None]
    seen = cv2.GaussianBlur(image @ mixing.T, (0, 0), 1.0) ** rng.uniform(0.6, 0.75) * corners
    pixels = (np.clip(seen, 0, 1) * 255).astype(np.uint8)
    packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR) / 255


LOOKS = {"night": night, "fog": fog, "sensor": sensor}


def main() -> None:
    """Change every image of a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("look", choices=LOOKS)
    given = parser.parse_args()
    shutil.copytree(given.data, given.out)
    for path in sorted(given.out.glob("*/images/*")):
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        image = cv2.imread(str(path))[..., ::-1] / 255
        changed = np.clip(LOOKS[given.look](image, rng), 0, 1)
        cv2.imwrite(str(path), (changed[..., ::-1] * 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
