"""What README and docs tell to type: every command exists, and on most pages it is run.

On the pages of `RUN` each console and Python block is run as it stands there, in one folder with
data, with options that make trainings short. `<!-- not run here: why -->` before a block leaves it
out. In all blocks of all pages the commands, experiment files and options must exist.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import builders
import pytest
import yaml
from e2e.conftest import TINY, pipa  # noqa: F401  # the fixture
from jsonargparse import ArgumentParser

from pipa.cli import COMMANDS
from pipa.files.installed import experiment_file
from pipa.run.options import add_sections
from pipa.run.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
METHODS = sorted(f"methods/{page.name}" for page in (ROOT / "docs/methods").glob("*.md"))
RUN = ("index.md", "your_photos.md", "troubleshooting.md", "api.md", *METHODS)
"""Other pages need hours, a GPU, data that nobody can ship, or have a test of their own."""
QUICK = {
    "adapt": ("--network=small", "--steps=4", "--crop=32", "--batch-size=2", "--device=cpu"),
    "train": (*TINY, "--trainer.max_steps=3", "--method.start=1"),
    "ablate": (*TINY, "--trainer.max_steps=2", "--method.start=1", "--jobs=1"),
}


class Block(NamedTuple):
    """A block of code of a page."""

    page: str
    kind: str
    text: str
    run: bool

    def __str__(self) -> str:
        """Name it in the list of tests."""
        return f"{self.page}: {self.text.strip().splitlines()[0][:50]}"


def name_of(page: Path) -> str:
    """The page's path below `docs`, or below the root for README.md and CONTRIBUTING.md."""
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def blocks_of(page: Path) -> list[Block]:
    """The console and Python blocks of a page."""
    found = re.findall(
        r"(<!-- not run here: .+? -->\n+)?```(console|python)\n(.*?)```",
        page.read_text(),
        re.DOTALL,
    )
    name = name_of(page)
    run = name in RUN
    return [Block(name, kind, text, run and not mark) for mark, kind, text in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block: Block) -> list[list[str]]:
    """The words after `pipa` of each command of a console block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [
        shlex.split(line.removeprefix("$ "), comments=True) for line in lines if "pipa" in line
    ]
    return [line[1:] for line in words if line[:1] == ["pipa"]]


COMMAND_LINES = [
    (block.page, words)
    for block in BLOCKS
    if block.kind == "console"
    for words in commands_of(block)
]


def test_there_are_blocks():
    assert {name_of(page) for page in PAGES} > {*RUN}
    assert len(COMMAND_LINES) > 30


@pytest.fixture(scope="module")
def options():
    """Every option of `pipa train`."""
    parser = ArgumentParser()
    add_sections(parser)
    return set(parser.get_defaults().as_flat().__dict__)


@pytest.mark.parametrize(("page", "words"), COMMAND_LINES, ids=str)
def test_a_command_of_the_docs_exists(page, words, options):
    name = " ".join(words[:2]) if words[0] == "data" else words[0]
    if words[0].startswith("-"):
        return
    assert name in COMMANDS, page
    if name not in ("train", "ablate"):
        return
    bare = [word for word in words[1:] if not word.startswith("-")]
    if bare and words[1] == bare[0]:
        assert Path(experiment_file(bare[0])).is_file() or bare[0].endswith(".yaml"), page
    for word in words[1:]:
        option = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and "." in option:
            known = option in options or any(name.startswith(f"{option}.") for name in options)
            assert known or option.startswith("student.options"), f"{page}: {word}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "console"], ids=str)
def test_a_line_can_be_pasted_into_any_shell(block):
    """macOS's zsh takes bare [brackets] for patterns and knows no # when typed; cmd knows no '."""
    for line in block.text.splitlines():
        bare = re.sub('"[^"]*"', "", line)
        assert not re.search(r"[\[\]{}*?#']", bare), line


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the data sets that the pages speak of, where commands are typed."""
    monkeypatch.chdir(tmp_path)
    size = (64, 96)
    builders.folder(tmp_path / "synthetic", 4, size=size)
    photos = {"labelled": False, "classes": "", "shift": 25, "seed": 50}
    builders.folder(tmp_path / "photos", 4, size=size, **photos)
    builders.folder(tmp_path / "labelled_photos", 2, size=size, shift=25, seed=90)
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_a_page_can_be_typed_from_its_first_line_to_its_last(page, place, pipa, monkeypatch):  # noqa: F811
    for block in (block for block in BLOCKS if block.page == page and block.run):
        if block.kind == "python":
            run_python(block, monkeypatch)
            continue
        for words in commands_of(block):
            if "--resume" in words:
                words = [*words, "--trainer.max_steps=5"]
            elif words[0] in QUICK:  # before the page's own options, which win
                words = [*words[:2], *QUICK[words[0]], *words[2:]]
            done = pipa(*words)
            assert done.code == 0, f"pipa {' '.join(words)}\n{done.out}{done.err}"


def run_python(block, monkeypatch):
    """Run a Python block; `pipa.adapt` gets the short options."""
    import pipa as package
    from pipa.run.adapt import adapt

    def short(*given, **options):
        quick = {"network": "small", "steps": 4, "crop": 32, "batch_size": 2, "device": "cpu"}
        return adapt(*given, **(quick | options))

    monkeypatch.setattr(package, "adapt", short, raising=False)
    exec(compile(block.text, block.page, "exec"), {})


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "python"], ids=str)
def test_the_python_of_a_page_compiles(block):
    compile(block.text, block.page, "exec")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(menu.partition("\nnav:")[2].join(("nav:", "")))["nav"]
    listed = set(re.findall(r"[\w/]+\.md", str(nav)))
    assert listed == {name_of(page) for page in (ROOT / "docs").rglob("*.md")}


@pytest.mark.parametrize("method", RECIPES)
def test_a_method_has_a_page_with_its_paper_its_command_and_a_docstring(method):
    page = ROOT / "docs/methods" / f"{method}.md"
    (line, *_) = [words for name, words in COMMAND_LINES if name == name_of(page)]
    assert line[line.index("--method.name") + 1] == method
    text = page.read_text()
    assert "https://arxiv.org/abs/" in text or method == "source_only"
    assert re.search("^::: pipa", text, re.MULTILINE)
