"""`pipa train --help` is short, quick and true."""

import re
import subprocess
import sys

import pytest
from jsonargparse import ArgumentParser

from pipa.cli.training import ABLATE_HELP, TRAIN_HELP
from pipa.run.grid import read_grid
from pipa.run.options import add_sections
from pipa.run.until import MOST_SEEDS

NOT_OPTIONS = {"print_config", "help-all"}


def options(text):
    """Every option of a help text, with its default where it says one."""
    blocks = re.findall(r"^  --([\w.-]+)(.*\n(?: {10,}.*\n)*)", text, re.MULTILINE)
    return {name: re.findall(r"\[([^\]]*)\]\n$", about) for name, about in blocks}


def test_the_short_help_says_what_the_parser_does():
    parser = ArgumentParser()
    add_sections(parser)
    defaults = parser.get_defaults().as_flat()
    found = options(TRAIN_HELP)
    assert len(found.keys() - NOT_OPTIONS) == 21  # twenty, and --resume
    for name in found.keys() - NOT_OPTIONS:
        assert hasattr(defaults, name), name
        for default in found[name]:
            if default != "the source's":
                assert default == str(getattr(defaults, name)), name


def test_the_short_help_fits_on_a_screen_and_loads_neither_torch_nor_a_parser():
    code = (
        "import sys, pipa.cli\n"
        "try: pipa.cli.main(['train', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_the_short_help_of_ablate_has_its_own_options():
    parser = ArgumentParser()
    with pytest.raises(SystemExit):  # there are no data
        read_grid(parser, [])
    mine = {action.dest for action in parser._actions}
    found = options(ABLATE_HELP)
    assert {name.replace("-", "_") for name in found.keys() - NOT_OPTIONS} <= mine
    assert found["most-seeds"] == [str(MOST_SEEDS)]
    assert max(map(len, ABLATE_HELP.splitlines())) <= 80


def test_the_long_help_has_every_option(pipa):
    done = pipa("train", "--help-all")
    assert done.code == 0
    for option in ("--data.pair_iou", "--pixel.temperature", "--trainer.devices"):
        assert option in done.out
