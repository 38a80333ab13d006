"""The authors' numbers that the tests here compare with; see tests/golden/trim_data.py."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden"
RECORD = json.loads((FOLDER / "data.json").read_text())
ARRAYS = dict(np.load(FOLDER / "data.npz"))
