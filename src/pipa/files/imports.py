"""Import of users' own classes by their dotted names."""

import importlib
import sys
from pathlib import Path
from typing import Any

from pipa.errors import PipaError


def import_name(name: str) -> Any:
    """Import MODULE.ATTRIBUTE; the current folder is searched as well.

    Args:
        name: The dotted name.

    Raises:
        PipaError: The module does not exist, cannot be imported, or has no such attribute.
    """
    module, _, attribute = name.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may fail in any way
        problem = f"cannot be imported ({type(error).__name__}: {error})"
        remedy = "Give MODULE.NAME of a module in this folder or on PYTHONPATH."
        raise PipaError(problem, name, remedy) from error


def import_class(name: str, option: str, *kinds: type) -> Any:
    """Import a class of the user's own.

    Args:
        name: Its dotted name.
        option: The option that names it, for the error.
        kinds: The classes of which it must be a subclass of one.

    Raises:
        PipaError: It cannot be imported, or is no such class.
    """
    found = import_name(name)
    if not (isinstance(found, type) and issubclass(found, kinds)):
        raise PipaError(f"{name} is no {' and no '.join(k.__name__ for k in kinds)}", option)
    return found
