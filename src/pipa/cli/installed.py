"""`pipa configs` and `pipa data nuclei`: the files that are installed with pipa."""

from pathlib import Path

from pipa.cli.common import new_parser


def configs_command(given: list[str]) -> int:
    """`pipa configs [NAME]`."""
    about = "List the experiment files that pipa brings, or print one: `pipa configs NAME`."
    parser = new_parser("configs", about)
    parser.add_argument("name", nargs="?", type=str | None, help="the file to print")
    name = parser.parse_args(given).name

    from pipa.errors import PipaError
    from pipa.files.installed import CONFIGS, experiment_files

    files = experiment_files()
    if name is None:
        width = max(map(len, files))
        print("\n".join(f"{file:{width}}  {about}" for file, about in files.items()))
        return 0
    if name not in files:
        raise PipaError("pipa brings no such experiment file", name, "`pipa configs` lists them.")
    print((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"), end="")
    return 0


def nuclei_command(given: list[str]) -> int:
    """`pipa data nuclei [FOLDER]`."""
    about = "Write a small example of real images: nuclei under two microscopes."
    parser = new_parser("data nuclei", about)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("nuclei"), help="to make")
    folder = parser.parse_args(given).folder

    from pipa.files.installed import write_nuclei

    write_nuclei(folder)
    print(f"wrote {folder}; try: pipa data check {folder / 'fluorescence'}")
    print(
        f"     pipa adapt {folder / 'fluorescence'} {folder / 'stain'} "
        f"--validation {folder / 'stain_val'}"
    )
    return 0
