"""The end of a run."""

from pipa.run.ending import write_report_if_possible


def test_a_run_without_a_report_is_still_a_run(tmp_path, caplog):
    (tmp_path / "metrics.csv").write_text("step,loss/source\n1,half a num")
    write_report_if_possible([tmp_path], tmp_path)
    assert "has no report: " in caplog.text
    assert "metrics.csv: cannot be read" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]
