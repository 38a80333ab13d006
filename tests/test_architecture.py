"""Limits of the design: allowed imports, the length of files, the imports of `--help`."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pipa
from pipa.models.build import HEADS

SOURCE = Path(pipa.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
GROUND = {"classes", "batch", "errors"}
ALLOWED = {
    "files": {"files"},
    "streets": {"streets", "files"},
    "data": {"data", "streets", "files"},
    "models": {"models", "files"},
    "losses": {"losses"},
    "deploy": {"deploy", "models", "files"},
    "evaluation": {"evaluation", "data", "models", "files"},
    "uda": {"uda", "evaluation", "data", "models", "losses", "files"},
    "run": {"run", "uda", "evaluation", "data", "models", "losses", "files"},
}
"""The other folders that each folder may import, beside the ground floor."""


def imported(file: Path) -> set[str]:
    """The second word of every `pipa.WORD...` that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("pipa.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_one_way(file):
    name = str(file.relative_to(SOURCE))
    folder = name.split("/")[0]
    if folder in ALLOWED:
        assert imported(file) <= ALLOWED[folder] | GROUND
    if name != "__main__.py" and folder != "cli":
        assert "cli" not in imported(file)


def imports() -> dict[str, set[str]]:
    """The modules of pipa that each module imports, at the top or in a function."""
    names = {".".join(("pipa", *file.relative_to(SOURCE).with_suffix("").parts)) for file in FILES}
    graph = {}
    for file in FILES:
        found = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        name = ".".join(("pipa", *file.relative_to(SOURCE).with_suffix("").parts))
        graph[name] = {n if n in names else f"{n}.__init__" for n in found} & names
    return graph


def test_no_two_modules_import_each_other():
    """Indirect imports count too; the package's own list of public names does not."""
    graph = {name: found - {"pipa.__init__"} for name, found in imports().items()}
    graph = {name: found - {name.rpartition(".")[0] + ".__init__"} for name, found in graph.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_fits_in_the_head(file):
    assert len(file.read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--help"], 0, "pipa train"), (["data", "check", "nowhere"], 2, "the folder does not exist")],
)
def test_help_and_checks_of_data_load_neither_torch_nor_lightning(words, code, said):
    lines = (
        "import sys, pipa.cli\n"
        f"try: pipa.cli.main({words})\n"
        f"except SystemExit as stop: assert stop.code == {code}\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr


def test_a_reader_that_goes_away_is_no_error():
    """As in `pipa predict ... | head -1`."""
    command = [sys.executable, "-m", "pipa", "--help"]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.stdout.close()
    assert (done.wait(), done.stderr.read()) == (0, b"")
    done.stderr.close()


def test_every_public_name_is_there_and_explained():
    for name in pipa.__all__:
        assert getattr(pipa, name).__doc__


PLAIN = {
    *("Batch", "Labelled", "Unlabelled", "SourceTerm", "TargetTerm", "Given"),
    *("adapt", "train", "predict", "evaluate", "compare", "Run", "Wrapped"),
    *("StudentOptions", "MethodOptions", "Optim", "CropPair"),
    *("create_segmenter", "load_segmenter", "save_segmenter", "Segmenter", "UDAData"),
    *("Predictor", "from_pretrained", "push_to_hub", "save_pretrained"),
    *("LabelSpace", "CITYSCAPES", "PipaError", "losses", "SourceOnly", "Method"),
}
"""Public names that come from no paper."""


@pytest.mark.parametrize("name", sorted(set(pipa.__all__) - PLAIN))
def test_what_comes_from_a_paper_says_which(name):
    assert re.search(r"(CVPR|ECCV|WACV|NeurIPS|ACM MM),? 20\d\d", getattr(pipa, name).__doc__)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_head_says_its_paper(head):
    module = sys.modules[HEADS[head].__module__]
    said = f"{HEADS[head].__doc__} {module.__doc__}"
    assert re.search(r"(CVPR|ECCV|NeurIPS|TPAMI)[^)]{0,12}20\d\d", said)
