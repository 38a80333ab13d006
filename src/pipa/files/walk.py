"""Listing the files of a folder: at any depth, through links, without hidden ones."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipa.files.images import LABEL_SUFFIXES

# fmt: off
LABEL_FOLDERS = frozenset([
    "annotations", "gt", "gtfine", "label", "labels", "mask", "masks", "segmentationclass",
    "segmentationobject",
])
# fmt: on
"""Names of folders of labels (lower case)."""


def files_below(folder: Path) -> list[Path]:
    """List what is no folder below a folder, sorted by path.

    Links to folders are followed, except for those that lead back to where they lie. Files and
    folders whose name begins with a dot are left out, such as `.ipynb_checkpoints`.
    """
    found = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not _leads_back(os.path.join(here, name))
        ]
        found += [Path(here, name) for name in files if not name.startswith(".")]
    return sorted(found)


def without_labels(files: Sequence[Path], root: Path) -> tuple[list[Path], str]:
    """Leave out label files below a folder, unless there is nothing else; say so in a line.

    Args:
        files: Files below `root`.
        root: The folder.

    Returns:
        The other files, and the line; it is empty if all are returned.
    """
    folders = {path: path.relative_to(root).parent for path in files}
    labels = {
        path
        for path, folder in folders.items()
        if path.suffix.lower() in LABEL_SUFFIXES
        and any(part.lower() in LABEL_FOLDERS for part in folder.parts)
    }
    if not labels or len(labels) == len(files):
        return list(files), ""
    names = ", ".join(sorted({str(folders[path]) for path in labels})[:3])
    line = f"{root}: {len(labels)} files in {names} are left out, as labels; if they are images, "
    return [path for path in files if path not in labels], f"{line}give the folder another name."


def _leads_back(folder: str) -> bool:
    """Whether a folder is a link to a folder that it lies in."""
    if not os.path.islink(folder):
        return False
    there, here = Path(os.path.realpath(folder)), Path(os.path.realpath(os.path.dirname(folder)))
    return there in (here, *here.parents)
