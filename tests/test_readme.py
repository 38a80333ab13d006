"""The Python in README runs as it stands there."""

import re
from pathlib import Path

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL
)


def test_the_python_of_readme_runs():
    assert BLOCKS
    for block in BLOCKS:
        scope: dict = {}
        exec(compile(block, "README.md", "exec"), scope)
        assert scope["ids"].shape == (64, 96)
        assert scope["loss"].isfinite()
