"""Tables of finished runs: means, paired differences, intervals."""

import json
import math

import numpy as np
import pytest
import yaml
from scipy import stats

from pipa.classes import CITYSCAPES, SYNTHIA13
from pipa.errors import PipaError
from pipa.evaluation.compare import compare
from pipa.evaluation.runs import Row, find_rows
from pipa.evaluation.scores import Result
from pipa.evaluation.tables import as_dict, cells, markdown, notes, terminal_table, write_tables


def row(name, values, seconds=()):
    results = {
        seed: Result(value, {"road": None if math.isnan(value) else value, "car": None})
        for seed, value in values.items()
    }
    return Row(name, results, dict(seconds))


def test_differences_are_taken_within_a_seed():
    """Seeds differ by 10, methods by 1: unpaired, nothing would be seen."""
    base = row("base", {0: 30.0, 1: 40.0, 2: 50.0})
    better = row("better", {0: 31.0, 1: 41.0, 2: 51.0, 7: 90.0})
    difference = compare([base, better]).difference(better, "base")
    assert difference.by_seed == {0: 1.0, 1: 1.0, 2: 1.0}
    assert difference.interval == pytest.approx((1.0, 1.0))


def test_the_table_says_mean_spread_and_difference(tmp_path):
    """Student's t of two seeds is 12.7: an interval of the mean of 3 and 5 is 4 +- 12.7."""
    rows = [
        row("base", {0: 30.0, 1: 32.0}, {0: 60.0, 1: 80.0}),
        row("more", {0: 33.0, 1: 37.0}),
        row("control", {0: 31.0}),
    ]
    comparison = compare(rows, ["base", "control"])
    lines = {line[0]: line[1:] for line in cells(comparison)}
    assert lines["base"] == ["31.0 ± 1.4", "2", "", "-1.0 (one seed)", "70 s"]
    assert lines["more"] == ["35.0 ± 2.8", "2", "+4.0 [-8.7, +16.7]", "+2.0 (one seed)", ""]
    assert lines["control"][:2] == ["31.0", "1"]
    files = write_tables(comparison, tmp_path)
    assert [file.name for file in files] == ["table.md", "table.json", "table.svg"]
    assert "| more | 35.0 ± 2.8 | 2 | +4.0 [-8.7, +16.7] |" in files[0].read_text()
    stored = json.loads(files[1].read_text())["rows"]["more"]["differences"]["base"]
    assert stored["by_seed"] == {"0": 3.0, "1": 5.0}
    assert stored["interval"] == pytest.approx([-8.706, 16.706], abs=1e-3)
    assert stored["bootstrap"] == pytest.approx([3.05, 4.95], abs=0.06)
    assert b"<svg" in files[2].read_bytes()


def test_means_over_synthias_classes_stand_below_the_table():
    """Classes that SYNTHIA does not have count 0 here, one that is no longer scored counts 80."""
    iou = {CITYSCAPES.names[i]: 50.0 if i in SYNTHIA13 else 0.0 for i in range(19)} | {"wall": 80.0}
    rows = [Row(name, {0: Result(0.0, iou), 1: Result(0.0, iou)}) for name in ("dacs", "pipa")]
    comparison = compare(rows)
    over_16 = (13 * 50 + 80) / 16
    assert notes(comparison)[1:3] == [
        f"mIoU over SYNTHIA's 16 classes: dacs {over_16:.1f} ± 0.0, pipa {over_16:.1f} ± 0.0.",
        "mIoU over SYNTHIA's 13 classes: dacs 50.0 ± 0.0, pipa 50.0 ± 0.0.",
    ]
    assert notes(comparison)[1] in markdown(comparison)
    assert json.loads(json.dumps(as_dict(comparison)))["rows"]["pipa"]["miou13"]["1"] == 50
    assert not any("SYNTHIA" in note for note in notes(compare([row("base", {0: 30.0})])))


SHIFTS = [("one", [-0.7, -0.5, -0.1, 0.2, 1.1]), ("two", [-0.8, -0.5, 0.0, 0.1, 1.2])]


def test_a_difference_is_marked_if_it_survives_the_correction():
    """Both p-values are between 0.025 and 0.05: one comparison is marked, of two none is."""
    base = row("base", dict.fromkeys(range(5), 30.0))
    near = [row(name, {s: 31.0 + d for s, d in enumerate(shifts)}) for name, shifts in SHIFTS]
    (p, q) = (stats.ttest_1samp([m - 30 for m in r.miou.values()], 0).pvalue for r in near)
    assert 0.025 < p < q < 0.05
    both = compare([base, *near])
    assert [line[3] for line in cells(both)[2:]] == ["+1.0 [+0.1, +1.9]", "+1.0 [+0.1, +1.9]"]
    stored = as_dict(both)["rows"]["one"]["differences"]["base"]
    assert (stored["p"], stored["p_holm"]) == pytest.approx((p, 2 * p))
    assert any("makes 2 comparisons" in note for note in notes(both))
    single = compare([base, near[0]])
    assert cells(single)[2][3] == "+1.0* [+0.1, +1.9]"
    assert any("makes 1 comparison " in note for note in notes(single))
    assert "+1.0* [+0.1, +1.9]" in markdown(single)


def test_two_references_make_one_comparison_of_each_other():
    rows = [row(name, {0: 30.0, 1: 30.5 + i}) for i, name in enumerate("abc")]
    comparison = compare(rows, ["a", "b"])
    assert len(comparison.differences()) == 4
    assert len(comparison.tested) == 3
    there, back = comparison.difference(rows[0], "b"), comparison.difference(rows[1], "a")
    assert comparison.adjusted_p(there) == comparison.adjusted_p(back)


def test_a_difference_over_fewer_seeds_than_its_row_says_how_many():
    rows = [row("base", {0: 30.0, 1: 32.0}), row("more", {0: 33.0, 1: 37.0, 2: 50.0})]
    assert cells(compare(rows))[2][2:4] == ["3", "+4.0 [-8.7, +16.7] (2 seeds)"]
    apart = [row("base", {0: 30.0}), row("other", {1: 31.0})]
    assert cells(compare(apart))[2][3] == "no seed in common"


def test_the_detectable_difference_is_that_of_the_fewest_seeds():
    """Five differences of standard deviation 1: noncentrality 3.7611 over the root of 5."""
    unit = np.array([-2, -1, 0, 1, 2]) / 2.5**0.5
    rows = [row("base", dict.fromkeys(range(6), 40.0)), row("x", dict(enumerate(40 + unit)))]
    found = compare(rows).detectable()
    assert (found.seeds, found.std) == (5, pytest.approx(1))
    assert found.alone == pytest.approx(3.76106 / 5**0.5, rel=1e-4)
    assert found.corrected == found.alone
    assert "With 5 seeds, a test finds a true difference of 1.68 points" in notes(compare(rows))[-1]
    more = [*rows, row("y", {0: 40.0, 1: 41.0, 2: 42.0})]
    assert compare(more).detectable().seeds == 3
    assert compare(more).detectable().corrected > compare(more).detectable().alone
    assert "With 3 seeds (the fewest of a comparison)" in notes(compare(more))[-1]


def test_one_seed_tells_nothing_and_the_notes_say_so(tmp_path):
    comparison = compare([row("base", {0: 30.0}), row("more", {0: 31.0})])
    assert cells(comparison)[2][3] == "+1.0 (one seed)"
    assert "no interval" in notes(comparison)[-1]
    stored = json.loads(write_tables(comparison, tmp_path)[1].read_text())
    assert stored["detectable"] is None
    assert stored["rows"]["more"]["differences"]["base"]["p_holm"] is None


def test_a_run_without_a_mean_is_left_out(tmp_path):
    rows = [row("base", {0: 30.0, 1: math.nan}), row("[b]x|y", {0: 31.0, 1: 32.0})]
    comparison = compare(rows)
    assert cells(comparison)[1][1:3] == ["30.0", "1"]
    terminal_table(comparison)
    text = write_tables(comparison, tmp_path)[0].read_text()
    assert "| [b]x/y | 31.5 ± 0.7 | 2 | +1.0 (one seed)" in text
    json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)


def test_an_unknown_reference_is_refused():
    with pytest.raises(PipaError, match="no row is called 'nobody'"):
        compare([row("base", {0: 30.0})], ["nobody"])


def write_run(folder, seed, miou, **options):
    folder.mkdir(parents=True)
    written = {"out": str(folder), "seed": seed, **options}
    (folder / "config.yaml").write_text(yaml.safe_dump(written))
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": {"validation": "there"}}, "there, but row one on here"),
        ({"data": {"validation": "here", "target_resize": [64, 48]}}, "here, scaled to 48x64"),
        ({"data": {"validation": "here", "format": "gta5"}}, "gta5:here"),
        ({"data": {"validation": "here"}, "trainer": {"limit_val_batches": 5}}, "the first 5"),
        ({}, "unknown images"),
    ],
)
def test_runs_that_were_scored_on_other_images_are_not_compared(tmp_path, options, said):
    write_run(tmp_path / "one", 0, 30.0, data={"validation": "here"})
    write_run(tmp_path / "two", 0, 30.0, **options)
    with pytest.raises(PipaError, match="row two: is scored on") as refused:
        compare(find_rows([tmp_path / "one", tmp_path / "two"]))
    assert said in str(refused.value)


def test_the_notes_say_on_which_images(tmp_path):
    """Both sides of `target_resize` count in either order."""
    for name, size in (("one", [64, 48]), ("two", [48, 64])):
        data = {"validation": "streets/test:gap=0.5", "target_resize": size}
        write_run(tmp_path / name, 0, 30.0, data=data, trainer={"limit_val_batches": 1.0})
    comparison = compare(find_rows([tmp_path / "one", tmp_path / "two"]))
    assert notes(comparison)[0] == "Scored on: streets/test:gap=0.5, scaled to 48x64."


def test_scores_over_other_classes_are_not_compared():
    other = Row("other", {0: Result(30.0, {"road": 30.0, "tram": None})})
    with pytest.raises(PipaError, match=r"row other: is scored on other classes .* \(car, tram\)"):
        compare([row("base", {0: 30.0}), other])


def test_a_run_says_itself_on_which_images_it_was_scored(tmp_path):
    """As the demo's, whose score is not that of its validation images."""
    for name, images in (("one", "test images"), ("two", "test images")):
        write_run(tmp_path / name, 0, 30.0, data={"validation": "others"}, pixel=name)
        file = tmp_path / name / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"scored_on": images}))
    (tmp_path / "results.json").write_text('{"seconds": 1}')  # of no run: the demo's own
    assert notes(compare(find_rows([tmp_path])))[0] == "Scored on: test images."


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(PipaError, match="no finished run"):
        find_rows([tmp_path])
