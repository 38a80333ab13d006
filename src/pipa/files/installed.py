"""The files that are installed with pipa: experiment files, and images to try it on."""

import shutil
from pathlib import Path

from pipa.errors import PipaError

CONFIGS = Path(__file__).parents[1] / "configs"
"""The experiment files; a file's name is its path in here, without `.yaml`."""
NUCLEI = Path(__file__).parents[1] / "examples" / "nuclei"
"""Nuclei under two microscopes (2018 Data Science Bowl, CC0), a few images of each."""


def experiment_file(name: str) -> str:
    """Find an experiment file: one on disk, else the one of pipa with that name.

    Args:
        name: A path, or the name of a file of pipa: `own_data_small`, `method/pipa`, and
            `configs/method/pipa.yaml` for the same.

    Returns:
        The path of the file, or `name` where there is none.
    """
    own = CONFIGS / f"{name.removeprefix('configs/').removesuffix('.yaml')}.yaml"
    return str(own) if own.is_file() and not Path(name).is_file() else name


def experiment_files() -> dict[str, str]:
    """List the experiment files of pipa: name, and what it is, from the first line of the file."""
    found = {}
    for file in sorted(CONFIGS.rglob("*.yaml"), key=lambda file: (len(file.parts), file)):
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        found[file.relative_to(CONFIGS).with_suffix("").as_posix()] = first.removeprefix("# ")
    return found


def write_nuclei(folder: Path) -> None:
    """Copy the example into a new folder.

    Args:
        folder: The folder to make; it gets `fluorescence` (labelled), `stain` (not labelled),
            `stain_val` (labelled images like those of `stain`) and `classes.yaml`.

    Raises:
        PipaError: The folder exists, or cannot be written.
    """
    try:
        shutil.copytree(NUCLEI, folder)
    except FileExistsError as error:
        raise PipaError("is there already", folder, "Give a new folder.") from error
    except OSError as error:
        problem = f"cannot be written ({error.strerror or 'the disk is full or read-only'})"
        raise PipaError(problem, folder, "Choose another place.") from error
