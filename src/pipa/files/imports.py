"""What a user defined in a module of their own, by its dotted name."""

import importlib
import sys
from pathlib import Path
from typing import Any

from pipa.errors import PipaError


def import_name(name: str) -> Any:
    """Import MODULE.ATTRIBUTE; the folder where the command was typed is searched as well.

    Args:
        name: The dotted name.

    Raises:
        PipaError: There is no such module, it fails to import, or it has no such attribute.
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
