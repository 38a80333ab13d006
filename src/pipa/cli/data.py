"""`pipa data check`, `data stats`, `data streets`, and `doctor`."""

from pathlib import Path

from pipa.cli.common import new_parser, show
from pipa.files.writing import refuse_suffix


def check_command(given: list[str]) -> int:
    """`pipa data check DATA`."""
    parser = new_parser("data check", "Read a whole data set; list every fault.")
    parser.add_argument("data", type=str, help="[FORMAT:]PATH")
    parser.add_argument("--classes", type=str | None, help="classes.yaml, or names with commas")
    parser.add_argument("--sheet", type=Path | None, help="write images beside labels to this PNG")
    options = parser.parse_args(given)

    from pipa.data.check import check

    refuse_suffix(options.sheet, ".png", "--sheet")
    report = check(options.data, classes=options.classes, sheet=options.sheet)
    if report.labels is None:
        print(f"{options.data}: {report.images} images, no labels, {report.count} faults")
    else:
        show(report.table)
    for line in (*report.faults, *report.notes):
        print(line)
    return 1 if report.faults else 0


def stats_command(given: list[str]) -> int:
    """`pipa data stats DATA`."""
    parser = new_parser("data stats", "Share of pixels and sampling probability of each class.")
    parser.add_argument("data", type=str, help="[FORMAT:]PATH")
    parser.add_argument("--classes", type=str | None, help="classes.yaml, or names with commas")
    parser.add_argument("--temperature", type=float, default=0.01, help="of rare class sampling")
    options = parser.parse_args(given)

    from pipa.data.check import stats

    show(stats(options.data, classes=options.classes, temperature=options.temperature))
    return 0


def streets_command(given: list[str]) -> int:
    """`pipa data streets DIR`."""
    parser = new_parser("data streets", "Write the built-in benchmark as folders of images.")
    parser.add_argument("folder", type=Path, help="folder to make")

    from pipa.streets import write_streets

    parser.add_function_arguments(write_streets, skip={"folder", "progress"})
    options = parser.parse_args(given).as_dict()
    write_streets(**options)
    print(f"wrote {options['folder']}")
    return 0


def doctor_command(given: list[str]) -> int:
    """`pipa doctor`."""
    new_parser("doctor", "What this machine and installation offer.").parse_args(given)
    from pipa.doctor import diagnose

    for what, value, state in diagnose():
        print(f"{what:28} {value}{'' if state == 'ok' else f'   <- {state}'}")
    return 0
