"""A loss in a module of the user's own trains through `pipa train`; what is no loss is refused."""

import csv
import sys

import pytest
from builders import folder

from .conftest import TINY

MINE = '''
from pipa import SourceTerm, TargetTerm


class Calm(TargetTerm):
    """Small logits on the target."""

    name = "calm"

    def __init__(self, *, weight: float = 0.1, power: int = 2) -> None:
        super().__init__(weight)
        self.power = power

    def forward(self, given):
        logits = given.student.analyse(given.batch.target.image).outputs[0].logits
        return (logits.abs() ** self.power).mean()


class Agree(TargetTerm):
    """Learns from the teacher."""

    name = "agree"
    needs_teacher = True

    def __init__(self) -> None:
        super().__init__(1.0)

    def forward(self, given):
        return given.pseudo.confidence.mean() * 0 + given.student.mean.sum() * 0


class Wide(SourceTerm):
    """Cannot be built without an argument."""

    name = "wide"

    def __init__(self, factor: float) -> None:
        super().__init__(factor)

    def forward(self, prediction, source, generator=None):
        return prediction.outputs[0].logits.square().mean()


class Stranger:
    """Is no term."""
'''


@pytest.fixture
def train(pipa, tmp_path, monkeypatch):
    """Train two steps, with the module `my_losses` on the path."""
    (tmp_path / "my_losses.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    source = folder(tmp_path / "source", 3)
    target = folder(tmp_path / "target", 3, labelled=False, seed=50)

    def call(*options, adapt=True):
        given = [*TINY, f"--data.source={source}", "--trainer.max_steps=2"]
        given += [f"--data.target={target}"] if adapt else []
        return pipa("train", *given, f"--out={tmp_path / 'run'}", *options)

    yield call
    sys.modules.pop("my_losses", None)  # other tests have modules of this name


def logged(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss/source")]
    return {name: float(value) for name, value in rows[0].items() if name.startswith("loss/")}


def test_a_term_of_ones_own_by_the_name_of_its_class(train, tmp_path):
    done = train("--method.name=source_only", "--method.terms=[my_losses.Calm]")
    assert done.code == 0, done.err
    found = logged(tmp_path / "run")
    assert set(found) == {"loss/source", "loss/calm"}
    assert found["loss/calm"] > 0
    assert "my_losses.Calm" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_term_of_ones_own_with_arguments_beside_ours(train, tmp_path):
    own = '{"class_path": "my_losses.Calm", "init_args": {"weight": 0.2, "power": 0}}'
    done = train("--method.name=daformer", f"--method.terms=[pixel, {own}]")
    assert done.code == 0, done.err
    found = logged(tmp_path / "run")
    assert set(found) == {"loss/source", "loss/pixel", "loss/mixed", "loss/calm"}
    assert found["loss/calm"] == pytest.approx(0.2)  # |x| ** 0 is 1 everywhere
    again = train("--resume", tmp_path / "run", "--trainer.max_steps=3")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method.terms=[pixle]"], ["no term is called pixle", "pair_cross_entropy"]),
        (["--method.terms=[my_losses.Clam]"], ["my_losses.Clam: cannot be imported"]),
        (["--method.terms=[nowhere.Calm]"], ["nowhere.Calm: cannot be imported"]),
        (["--method.terms=[my_losses.Stranger]"], ["is no SourceTerm and no TargetTerm"]),
        (["--method.terms=[my_losses.Wide]"], ["cannot be built", "init_args"]),
        (
            ["--method.terms=[my_losses.Agree]", "--method.name=advent"],
            ["term agree", "no teacher", "daformer"],
        ),
        (
            ["--method.terms=[pair_cross_entropy]", "--method.name=source_only"],
            ["term pair_cross_entropy", "no teacher"],
        ),
        (
            ["--method.terms=[masked]", "--method.name=minent"],
            ["term masked", "--masked.teacher own"],
        ),
        (["--method.name=advent", "--method.adversarial=0"], ["--method.adversarial", "above 0"]),
        (["--method.name=self_training"], ["self_training", "daformer"]),
        (["--method.momentum=1.5"], ["--method.momentum", "0 to 1"]),
        (["--patch.weight=-1"], ["--patch.weight"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(train, tmp_path, options, words):
    done = train(*options)
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    assert not (tmp_path / "run").exists()


def test_a_target_term_without_a_target_names_the_target(train):
    done = train("--method.name=source_only", "--method.terms=[patch]", adapt=False)
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert "--data.target" in done.err
    remedy = done.err.partition("--method.name source_only")[2]
    assert remedy.startswith(" without target terms")  # its name alone is given already
