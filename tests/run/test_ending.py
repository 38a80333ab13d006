"""The end of a run."""

from pipa.evaluation.report import write_report
from pipa.run.ending import write_report_if_possible


def test_a_later_report_says_what_the_first_one_said(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / "rows" / "one" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("step,loss/source\n1,0.5")
    for runs in (tmp_path / "rows", tmp_path / "rows" / "one" / "seed0"):
        page = runs / "report.html"
        texts = {"title": "Renders to photos", "about": ["network: small: no GPU is here"]}
        write_report_if_possible([runs], runs, **texts)
        first = page.read_text()
        assert all(
            text in first for text in ("Renders to photos", "network: small: no GPU is here")
        )
        page.unlink()
        write_report([runs], page)
        assert page.read_text() == first
        (runs / "report.json").write_text("half a")
        write_report([runs], page)
        assert "Renders to photos" not in page.read_text()


def test_a_run_without_a_report_is_still_a_run(tmp_path, caplog):
    (tmp_path / "metrics.csv").write_text("step,loss/source\n1,half a num")
    write_report_if_possible([tmp_path], tmp_path)
    assert "has no report: " in caplog.text
    assert "metrics.csv: cannot be read" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]
