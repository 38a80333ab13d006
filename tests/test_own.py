"""The examples of a loop and of a loss of one's own, run as they stand."""

import runpy
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_losses_work_in_somebody_elses_loop():
    history = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert all(np.isfinite(list(losses.values())).all() for losses in history)
    assert history[-1]["source"] < 0.5 * history[0]["source"]
    assert history[-1]["pixel"] < 0.5 * history[0]["pixel"]
    assert max(losses["patch"] for losses in history) > 0


def test_the_notebook_of_a_loss_of_ones_own_runs():
    notebook = nbformat.read(EXAMPLES / "own_loss.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    resources = {"metadata": {"path": str(EXAMPLES)}}
    patient = {"timeout": 300, "iopub_timeout": 120, "startup_timeout": 300}
    NotebookClient(notebook, resources=resources, **patient).execute()
    *_, losses, _, picture = notebook.cells
    (values,) = [output["data"]["text/plain"] for output in losses.outputs]
    assert len(eval(values)) == 4  # from step 2 to step 5
    assert all(value > 0 for value in eval(values))
    kinds = [set(output.get("data", ())) for output in picture.outputs]
    assert any("image/png" in kind for kind in kinds)
    assert picture.outputs[0]["data"]["text/plain"] == "(256, 320)"
