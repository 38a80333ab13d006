"""Listing the files of a folder: at any depth, through links, without hidden ones."""

import os
from pathlib import Path


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


def _leads_back(folder: str) -> bool:
    """Whether a folder is a link to a folder that it lies in."""
    if not os.path.islink(folder):
        return False
    there, here = Path(os.path.realpath(folder)), Path(os.path.realpath(os.path.dirname(folder)))
    return there in (here, *here.parents)
