"""Tables of finished runs: means, paired differences, intervals."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipa.errors import PipaError
from pipa.evaluate.compare import bootstrap_interval, compare
from pipa.evaluate.runs import Row, find_rows
from pipa.evaluate.scores import Result


def row(name, values, seconds=()):
    results = {
        seed: Result(value, {"road": None if math.isnan(value) else value, "car": None})
        for seed, value in values.items()
    }
    return Row(name, results, dict(seconds))


def test_the_interval_is_that_of_all_resamples():
    values = [1.0, 2.0, 6.0]
    means = sorted(sum(some) / 3 for some in itertools.product(values, repeat=3))
    assert len(means) == 27
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(np.quantile(means, 0.025))
    assert high == pytest.approx(np.quantile(means, 0.975))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9), st.floats(-9, 9))
def test_the_interval_holds_the_mean_and_moves_with_the_values(values, shift):
    low, high = bootstrap_interval(values, draws=500)
    slack = 1e-9 if len(values) <= 6 else 5.0
    assert low - slack <= np.mean(values) <= high + slack
    moved = bootstrap_interval([value + shift for value in values], draws=500)
    np.testing.assert_allclose(moved, [low + shift, high + shift], atol=1e-9)


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) is None


def test_differences_are_taken_within_a_seed():
    """Seeds differ by 10, methods by 1: unpaired, nothing would be seen."""
    base = row("base", {0: 30.0, 1: 40.0, 2: 50.0})
    better = row("better", {0: 31.0, 1: 41.0, 2: 51.0, 7: 90.0})
    difference = compare([base, better]).difference(better, "base")
    assert difference.by_seed == {0: 1.0, 1: 1.0, 2: 1.0}
    assert difference.interval == pytest.approx((1.0, 1.0))


def test_the_table_says_mean_spread_and_difference(tmp_path):
    rows = [
        row("base", {0: 30.0, 1: 32.0}, {0: 60.0, 1: 80.0}),
        row("more", {0: 33.0, 1: 37.0}),
        row("control", {0: 31.0}),
    ]
    comparison = compare(rows, ["base", "control"])
    lines = {cells[0]: cells[1:] for cells in comparison.lines()}
    assert lines["base"] == ["31.0 ± 1.4", "2", "", "-1.0", "70 s"]
    assert lines["more"] == ["35.0 ± 2.8", "2", "+4.0 [+3.1, +4.9]", "+2.0", ""]
    assert lines["control"][:2] == ["31.0", "1"]
    files = comparison.write(tmp_path)
    assert [file.name for file in files] == ["table.md", "table.json", "table.svg"]
    assert "| more | 35.0 ± 2.8 | 2 | +4.0 [+3.1, +4.9] |" in files[0].read_text()
    stored = json.loads(files[1].read_text())
    assert stored["more"]["differences"]["base"]["by_seed"] == {"0": 3.0, "1": 5.0}
    assert b"<svg" in files[2].read_bytes()


def test_students_interval_is_that_of_the_textbook():
    """Five differences, t = 2.776: mean 3, standard deviation 1.5811."""
    base = row("base", dict.fromkeys(range(5), 0.0))
    other = row("other", {seed: float(seed + 1) for seed in range(5)})
    low, high = compare([base, other]).difference(other, "base").student
    assert low == pytest.approx(3 - 2.776 * 1.58114 / 5**0.5, abs=1e-4)
    assert high == pytest.approx(3 + 2.776 * 1.58114 / 5**0.5, abs=1e-4)


def test_a_run_without_a_mean_is_left_out(tmp_path):
    rows = [row("base", {0: 30.0, 1: math.nan}), row("[b]x|y", {0: 31.0, 1: 32.0})]
    comparison = compare(rows)
    assert comparison.lines()[1][1:3] == ["30.0", "1"]
    comparison.table()
    text = comparison.write(tmp_path)[0].read_text()
    assert "| [b]x/y | 31.5 ± 0.7 | 2 | +1.0" in text
    json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)


def test_an_unknown_reference_is_refused():
    with pytest.raises(PipaError, match="no row is called 'nobody'"):
        compare([row("base", {0: 30.0})], ["nobody"])


def write_run(folder, seed, miou, **options):
    folder.mkdir(parents=True)
    lines = [f"out: {folder}", f"seed: {seed}", *(f"{k}: {v}" for k, v in options.items())]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n")
    scores = {"seed": seed, "miou": miou, "iou": {"road": miou}, "seconds": 5.0}
    (folder / "results.json").write_text(json.dumps(scores))


def test_runs_that_differ_in_their_seed_are_one_row(tmp_path):
    write_run(tmp_path / "a" / "seed0", 0, 30.0, pixel=False)
    write_run(tmp_path / "a" / "seed1", 1, 31.0, pixel=False)
    write_run(tmp_path / "pipa_s0", 0, 33.0, pixel=True)
    write_run(tmp_path / "pipa_s1", 1, 34.0, pixel=True)
    rows = find_rows([tmp_path / "a", tmp_path / "pipa_s0", tmp_path / "pipa_s1"])
    assert [(r.name, r.miou) for r in rows] == [
        ("a", {0: 30.0, 1: 31.0}),
        ("pipa", {0: 33.0, 1: 34.0}),
    ]


def test_the_same_run_twice_is_refused(tmp_path):
    write_run(tmp_path / "one", 0, 30.0)
    write_run(tmp_path / "two", 0, 30.0)
    with pytest.raises(PipaError, match="second run"):
        find_rows([tmp_path / "one", tmp_path / "two"])


def test_runs_that_were_scored_on_other_images_are_not_compared(tmp_path):
    write_run(tmp_path / "one", 0, 30.0, data="{validation: here}")
    write_run(tmp_path / "two", 0, 30.0, data="{validation: there}")
    with pytest.raises(PipaError, match="was scored on there, others on here"):
        find_rows([tmp_path / "one", tmp_path / "two"])


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(PipaError, match="no finished run"):
        find_rows([tmp_path])
