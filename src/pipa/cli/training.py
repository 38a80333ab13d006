"""`pipa train`, `ablate`, `compare` and `demo`."""

from pathlib import Path

from pipa.cli.common import new_parser, print_scores, show


def train_command(given: list[str]) -> int:
    """`pipa train [CONFIG...] [--data FORMAT] [--SECTION.NAME VALUE]...`."""
    from pipa.run.options import read_experiment
    from pipa.run.train import train

    about = "Train or adapt a segmenter. Every option can stand in CONFIG, a YAML file."
    run = train(**read_experiment(new_parser("train", about), given))
    if not run.is_first:
        return 0
    if run.result is not None:
        print_scores(run.result)
    if run.verdict:
        print(run.verdict)
    print(f"wrote {run.out}; try: pipa predict {run.out} IMAGE")
    return 0


def ablate_command(given: list[str]) -> int:
    """`pipa ablate CONFIG --vary pixel,patch --seeds 0,1,2`."""
    from pipa.evaluate.tables import notes, terminal_table
    from pipa.run.ablate import ablate
    from pipa.run.grid import read_grid

    about = (
        "Train every combination of some options with several seeds. Options as in `pipa train`."
    )
    grid = read_grid(new_parser("ablate", about), given)
    comparison, faults = ablate(grid, tell=lambda line: print(line, flush=True))
    show(terminal_table(comparison))
    print(*notes(comparison), sep="\n")
    print(f"wrote {grid.out / 'table.md'}, table.json, table.svg")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def compare_command(given: list[str]) -> int:
    """`pipa compare RUN RUN...`."""
    parser = new_parser("compare", "Table of finished runs; those that differ in seed are one row.")
    parser.add_argument("runs", nargs="+", type=Path, help="runs, or folders of runs")
    about = "rows that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    parser.add_argument(
        "--out", type=Path | None, help="folder for table.md, table.json, table.svg"
    )
    options = parser.parse_args(given)

    from pipa.evaluate.compare import compare
    from pipa.evaluate.runs import find_rows
    from pipa.evaluate.tables import notes, terminal_table, write_tables
    from pipa.run.grid import comma_separated

    comparison = compare(find_rows(options.runs), comma_separated(options.against))
    show(terminal_table(comparison))
    print(*notes(comparison), sep="\n")
    if options.out:
        print("wrote", *write_tables(comparison, options.out))
    return 0


def demo_command(given: list[str]) -> int:
    """`pipa demo`."""
    parser = new_parser("demo", "Source-only, a control and PiPa on the built-in benchmark.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500, help="of each of the three trainings")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the report")
    options = parser.parse_args(given)

    from pipa.run.demo import demo

    print("Three trainings side by side; some five minutes on two cores.", flush=True)
    show(demo(options.out, seed=options.seed, steps=options.steps))
    print(f"wrote {options.out / 'report.html'} and {options.out / 'results.json'}")
    return 0
