"""`pipa report`."""

from pathlib import Path

from pipa.cli.common import new_parser
from pipa.files.writing import refuse_suffix


def report_command(given: list[str]) -> int:
    """`pipa report RUN...`."""
    about = "One HTML file on runs, finished or not; those that differ in seed are one method."
    parser = new_parser("report", about)
    parser.add_argument("runs", nargs="+", type=Path, help="runs, or folders of runs")
    about = "methods that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    parser.add_argument("--pictures", type=int, default=12, help="images to look at; 0: none")
    about = "the file to write; default: report.html in the folder, of several runs in this one"
    parser.add_argument("--out", type=Path | None, help=about)
    options = parser.parse_args(given)
    refuse_suffix(options.out, ".html", "--out")

    from pipa.evaluation.report import write_report
    from pipa.evaluation.runs import comma_separated

    folder = options.runs[0] if len(options.runs) == 1 else Path()
    out = options.out or folder / "report.html"
    against = comma_separated(options.against)
    write_report(options.runs, out, against=against, pictures=options.pictures)
    print(f"wrote {out}")
    return 0
