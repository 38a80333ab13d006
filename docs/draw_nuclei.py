"""Draw README's picture: stained nuclei, their truth, a network before and after adaptation.

python docs/draw_nuclei.py BEFORE AFTER STAIN_VAL docs/nuclei.jpg

BEFORE and AFTER are runs of `pipa ablate ablation/nuclei --rows ablation/robust_rows` (source-only
and robust, seed 0), STAIN_VAL a folder of `images` and `labels` (2018 Data Science Bowl, CC0).
"""

import sys
from pathlib import Path

import cv2
import numpy as np

import pipa

SIZE = 240, 240
PICTURES = 4


def outlined(image: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """Draw the outlines of the nuclei onto the image."""
    drawn = image.copy()
    outlines, _ = cv2.findContours(nuclei, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, (255, 220, 0), 2)
    return drawn


def main() -> None:
    """Draw one column for each image."""
    before, after, data, out = sys.argv[1:]
    models = [pipa.load_segmenter(run) for run in (before, after)]
    files = sorted((Path(data) / "images").iterdir())
    columns = []
    for file in files[:: len(files) // PICTURES][:PICTURES]:
        image = cv2.imread(str(file))[..., ::-1]
        label = cv2.imread(str(Path(data, "labels", file.stem + ".png")), cv2.IMREAD_GRAYSCALE)
        masks = [(label == 1).astype(np.uint8), *(model.predict(image) for model in models)]
        pictures = [image, *(outlined(image, mask) for mask in masks)]
        columns.append(np.vstack([cv2.resize(picture[..., ::-1], SIZE) for picture in pictures]))
    cv2.imwrite(out, np.hstack(columns))


if __name__ == "__main__":
    main()
