"""What the options `source`, `target`, `validation` name: `[FORMAT[/SPLIT]:]PATH`.

- `./synthetic`: a folder with `images/` and `labels/`;
- `gta5:/data/gta5`: an original layout, any name in `data_sets`;
- `cityscapes/val:/data/cityscapes`: another split than the role's own;
- `streets`: the built-in benchmark; `streets:gap=0.3,seed=1` with other settings;
- `my_module.my_function:/data/mine`: a function of the user's own, see `data_sets`.
"""

import inspect
import logging
from pathlib import Path

from pipa.data.data_sets import DATA_SETS, TRAIN_VAL, DataSet, Role
from pipa.data.faults import listed, unread
from pipa.data.layouts import Files
from pipa.errors import PipaError
from pipa.files.imports import import_name

log = logging.getLogger("pipa")


def find(
    spec: str, role: Role, default: str = "folder", *, skipped: list[PipaError] | None = None
) -> Files:
    """List the files that a specification names; those of a target without labels.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        role: What the data are for: decides the split, and that a target has no labels.
        default: Format of a path without one.
        skipped: The list that images without a label are added to; None: they are raised.

    Raises:
        PipaError: The format is unknown, the files are not where they should be, or an image has
            no label; with `skipped` only if none has one.
    """
    files = find_all(spec, role, default, labelled=role != "target")
    if files.faults and (skipped is None or not files.pairs):
        raise files.faults[0]
    if skipped is not None:
        skipped.extend(files.faults)
    for line in (*listed(unread(files)), *files.notes):
        log.warning("%s", line)
    return files


def find_all(spec: str, role: Role, default: str = "folder", *, labelled: bool) -> Files:
    """List the same files; do not raise for an image without a label, but list it as a fault.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        role: What the data are for: decides the split.
        default: Format of a path without one.
        labelled: Whether to look for labels.

    Raises:
        PipaError: The format is unknown, or the files are not where they should be.
    """
    kind, split, path = parse(spec, default)
    entry = data_set_named(kind, spec)
    if split and entry.splits is None:
        raise PipaError(f"{kind} has no splits", spec, f"Write {kind}:PATH.")
    split = split or (entry.splits or {}).get(role, "")
    files = entry.list_files(Path(path).expanduser(), split, labelled)
    if not files.pairs and not files.faults:
        raise PipaError("lists no images", spec)
    return files


def parse(spec: str, default: str = "folder") -> tuple[str, str, str]:
    """Take a specification apart: format, split (may be empty), path.

    Raises:
        PipaError: The format is unknown, or the specification has two meanings.
    """
    head, colon, path = spec.partition(":")
    kind, _, split = head.partition("/")
    if kind in DATA_SETS:
        if colon:
            return kind, split, path
        if not DATA_SETS[kind].needs_path and not (split and Path(spec).exists()):
            if Path(spec).exists():
                remedy = f"Write ./{spec} for the folder, {spec}: for the benchmark."
                raise PipaError("is a folder here, and the name of a benchmark", spec, remedy)
            return kind, split, ""
    if not colon or len(head) == 1 or Path(spec).exists():  # one letter: a drive of Windows
        return default, "", spec
    if is_dotted(kind):
        return kind, split, path
    raise unknown(head, spec)


def data_set_named(kind: str, spec: str) -> DataSet:
    """Look a format up in the table, or import it.

    Args:
        kind: A name in the table, or the dotted name of a function.
        spec: The specification, for errors.

    Raises:
        PipaError: There is no such data set.
    """
    if kind in DATA_SETS:
        return DATA_SETS[kind]
    if is_dotted(kind):
        return imported(kind)
    raise unknown(kind, spec)


def imported(name: str) -> DataSet:
    """Import a function that lists pairs of paths, as those in `data_sets` do.

    Its module may lie in the current folder. If the function is decorated, its splits are those of
    the decorator, else train and val.

    Raises:
        PipaError: The function cannot be imported, or takes other arguments.
    """
    found = import_name(name)
    remedy = "It must be a function (root, split, labelled) -> Files; see pipa.data.data_sets."
    try:
        inspect.signature(found).bind(Path(), "train", True)
    except TypeError as error:
        raise PipaError(f"cannot be used as a data set ({error})", name, remedy) from error
    known = (entry for entry in DATA_SETS.values() if entry.list_files is found)

    def checked(root: Path, split: str, labelled: bool) -> Files:
        files = found(root, split, labelled)
        if not isinstance(files, Files):
            raise PipaError(f"gave a {type(files).__name__}, not Files", name, remedy)
        return files

    return next(known, DataSet(checked, TRAIN_VAL))


def is_dotted(kind: str) -> bool:
    """Return whether this can be the name of a function in a module."""
    return "." in kind and all(part.isidentifier() for part in kind.split("."))


def unknown(kind: str, spec: str) -> PipaError:
    """Return the error about an unknown format."""
    known = f"Known: {', '.join(DATA_SETS)}, or my_module.my_function."
    return PipaError(f"the format {kind} is not known", spec, known)
