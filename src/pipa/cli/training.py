"""`pipa adapt`, `train`, `ablate`, `compare` and `demo`."""

from pathlib import Path

from pipa.cli.common import new_parser, print_scores, show

ADAPT_HELP = """\
usage: pipa adapt SOURCE TARGET [--validation LABELLED] [--out RUN]

Train on the labelled images of SOURCE, adapt to the unlabelled ones of TARGET,
and say whether that helped. All files are checked first; what you leave out is
chosen for this machine and these data, and said with its reason.

  SOURCE                a folder of images/, labels/ and classes.yaml
  TARGET                a folder of images; labels in it are never opened
                        Both may be [FORMAT:]PATH; see `pipa data --help`.
  --validation DATA     labelled images like the target's, to score on, and
                        to decide which model is kept
  --out RUN             folder to make [runs/SOURCE-to-TARGET]
  --classes CLASSES     classes.yaml, or names with commas [the source's]

  --recipe NAME|FILE    own_data_small, own_data_light, own_data, or your own
  --network NAME        HEAD_BACKBONE, such as segformer_mit_b0; or small
  --pretrained WHAT     the encoder's weights: name on the Hub, folder, or none
  --crop SIZE           side, or HEIGHTxWIDTH, of the crops
  --resize SIZE         scale the target's images, and those of --validation,
                        to fit into a side, or HEIGHTxWIDTH
  --batch-size N        source images, and target images, per step
  --steps N             length of the training
  --device DEVICE       cpu, cuda, mps [cuda where there is one]
  --on-error HOW        stop, or skip, at a faulty file [stop]
  --seed N              decides every draw [0]

RUN holds model/, for `pipa predict RUN IMAGE`, and report.html. `pipa train`
has all other options, and `pipa train --resume RUN` goes on after a break.
"""
TRAIN_HELP = """\
usage: pipa train [CONFIG...] [--SECTION.NAME VALUE]...

Train or adapt a network. Every option can stand in a CONFIG, a YAML file; a
later file, and then an option, overrides. pipa brings own_data_small and
own_data_light (a CPU), own_data (a GPU) and those that `pipa configs` lists;
`pipa adapt` chooses for you.

  --data.source DATA         labelled images to learn from, [FORMAT:]PATH
  --data.target DATA         images to adapt to; their labels are never opened
  --data.validation DATA     labelled images like the target's, to score on
  --data.classes CLASSES     classes.yaml, or names with commas [the source's]
  --data.crop SIZE           side, or HEIGHTxWIDTH, of the crops [512]
  --data.batch_size N        source images, and target images, per step [2]
  --data.workers N           processes that load images [4]
  --data.on_error HOW        stop, or skip, at a faulty file [stop]

  --student.name NAME        segformer_mit_b0, ..., small, or MODULE.CLASS of
                             your own [daformer_mit_b5]
  --student.pretrained WHAT  a name on the Hub, a folder, none, auto [auto]

  --method.name NAME         source_only, minent, advent, adaptsegnet, dacs,
                             daformer, mic, pipa, MODULE.CLASS [pipa]
  --method.terms "[A,B]"     further losses: pixel, patch, masked, your own, ...
  --method.start STEP        first step with a target [0]

  --optim.lr RATE            learning rate of the encoder [6e-05]
  --trainer.max_steps N      length of the training [40000]
  --trainer.precision P      32-true, or bf16-mixed on a GPU
  --trainer.accelerator A    cpu, gpu, auto [auto]

  --judge N                  judge by N target images, without labels, whether
                             adaptation helped [0]
  --seed N                   decides every draw [0]
  --out RUN                  folder of the run [runs/latest]

  --resume RUN               go on with a run where it stopped
  --print_config             print all settings as a CONFIG, and end
  --help-all                 all other options of data, losses and Lightning
"""
ABLATE_HELP = """\
usage: pipa ablate [CONFIG] [--vary A,B] [--seeds 0,1,2] [--SECTION.NAME VALUE]

Train every combination of some options with several seeds, and print a table
of the differences with their 95 percent intervals. The same command goes on
where it stopped. Options as in `pipa train`, and:

  --vary A,B           terms (pixel, or your own my_losses.Mine), switches
                       (data.pad), OPTION=VALUE:VALUE: every combination is
                       a row
  --rows FILE          YAML instead: ROW: {OPTION: VALUE, ...}
  --seeds 0,1,2        seeds of each row [0,1,2]
  --against ROW,ROW    rows that all are compared with [the first]
  --until POINTS       add seeds until each difference is known to plus or
                       minus so many points
  --until-rows A,B     the rows whose differences --until looks at [all]
  --most-seeds N       where --until stops in any case [10]
  --jobs N             runs at the same time [one for each GPU, or core]
  --out DIR            folder of the runs and their report [runs/latest]

  --help-all           all options of data, losses and Lightning
"""
"""The options that people use, written out: the parser of all options takes seconds to build."""


def adapt_command(given: list[str]) -> int:
    """`pipa adapt SOURCE TARGET`."""
    if {"-h", "--help"} & set(given):
        print(ADAPT_HELP, end="")
        return 0
    parser = new_parser("adapt", "Adapt a network from labelled images to unlabelled ones.")
    parser.add_argument("source", type=str)
    parser.add_argument("target", type=str)
    for name in ("--validation", "--out", "--classes", "--recipe", "--network", "--pretrained"):
        parser.add_argument(name, type=str | None)
    parser.add_argument("--crop", type=int | tuple[int, int] | None)
    parser.add_argument("--resize", type=int | tuple[int, int] | None)
    parser.add_argument("--batch-size", type=int | None)
    parser.add_argument("--steps", type=int | None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop")
    from pipa.files.words import with_sizes

    options = parser.parse_args(with_sizes(given)).as_dict()

    from pipa.run.adapt import adapt

    run = adapt(**options)
    if run.result is not None:
        print_scores(run.result)
    if run.verdict:
        print(run.verdict)
    print(f"wrote {run.folder / 'model'}, {run.folder / 'report.html'}")
    print(f"try: pipa predict {run.folder} IMAGE")
    return 0


def train_command(given: list[str]) -> int:
    """`pipa train [CONFIG...] [--data FORMAT] [--SECTION.NAME VALUE]...`."""
    if {"-h", "--help"} & set(given):
        print(TRAIN_HELP, end="")
        return 0
    given = ["--help" if word == "--help-all" else word for word in given]
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
    print(f"wrote {run.folder}; try: pipa predict {run.folder} IMAGE")
    return 0


def ablate_command(given: list[str]) -> int:
    """`pipa ablate CONFIG --vary pixel,patch --seeds 0,1,2`."""
    if {"-h", "--help"} & set(given):
        print(ABLATE_HELP, end="")
        return 0
    given = ["--help" if word == "--help-all" else word for word in given]
    from pipa.evaluation.tables import notes, terminal_table
    from pipa.run.ablate import ablate
    from pipa.run.grid import read_grid

    about = (
        "Train every combination of some options with several seeds. Options as in `pipa train`."
    )
    grid = read_grid(new_parser("ablate", about), given)
    comparison, faults = ablate(grid, tell=lambda line: print(line, flush=True))
    show(terminal_table(comparison))
    print(*notes(comparison), sep="\n")
    print(f"wrote {grid.out / 'report.html'}, table.md, table.json, table.svg")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def compare_command(given: list[str]) -> int:
    """`pipa compare RUN RUN...`."""
    parser = new_parser("compare", "Table of finished runs; those that differ in seed are one row.")
    parser.add_argument("runs", nargs="+", type=Path, help="runs, or folders of runs")
    about = "rows that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    about = "folder for report.html, table.md, table.json, table.svg"
    parser.add_argument("--out", type=Path | None, help=about)
    options = parser.parse_args(given)

    from pipa.evaluation.compare import compare
    from pipa.evaluation.report import write_report
    from pipa.evaluation.runs import comma_separated, find_rows
    from pipa.evaluation.tables import notes, terminal_table, write_tables

    comparison = compare(find_rows(options.runs), comma_separated(options.against))
    show(terminal_table(comparison))
    print(*notes(comparison), sep="\n")
    if options.out:
        report = options.out / "report.html"
        runs = {row.name: list(row.folders.values()) for row in comparison.rows}
        write_report(runs, report, against=comparison.against)
        print("wrote", report, *write_tables(comparison, options.out))
    return 0


def demo_command(given: list[str]) -> int:
    """`pipa demo`."""
    parser = new_parser("demo", "Source-only, a control and PiPa on the built-in benchmark.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200, help="of each of the three trainings")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the report")
    options = parser.parse_args(given)

    from pipa.run.demo import demo

    print("Three trainings side by side; six to eight minutes on two cores.", flush=True)
    show(demo(options.out, seed=options.seed, steps=options.steps))
    print(f"wrote {options.out / 'report.html'} and {options.out / 'results.json'}")
    return 0
