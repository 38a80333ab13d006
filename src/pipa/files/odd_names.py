r"""Names of files that are not UTF-8, for libraries that take no others.

Python holds each such byte as half of a surrogate pair (PEP 383), which UTF-8 cannot hold; an
experiment file writes it as an escape, `"caf\uDCE9"`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DESCRIPTORS = Path("/proc/self/fd")
"""Linux's links to what a process has open. File systems of macOS refuse such names."""


def is_utf8(path: Path) -> bool:
    """Whether a path can be written as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Lend a path of a file or folder that can be written as UTF-8.

    It is the path itself, if that can; else the link of an open descriptor.
    """
    if is_utf8(path) or not (DESCRIPTORS.is_dir() and path.exists()):
        yield path
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield DESCRIPTORS / str(descriptor)
    finally:
        os.close(descriptor)


def read_odd_names() -> None:
    """Have jsonargparse take odd names as arguments, and their escapes in experiment files."""
    import yaml
    from jsonargparse import get_loader, set_loader

    usual = get_loader("yaml")
    if usual.__module__ == __name__:
        return  # it does already

    def load(text: str) -> Any:
        try:
            return usual(text)
        except UnicodeEncodeError:
            return text
        except yaml.YAMLError:
            if "\\uDC" not in text:
                raise
            return yaml.safe_load(text)  # libyaml refuses these escapes; PyYAML reads them

    set_loader("yaml", load, (yaml.YAMLError,))
