"""The folder for files that pipa can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$PIPA_CACHE`, else `~/.cache/pipa`; the folder may not exist yet."""
    return Path(os.environ.get("PIPA_CACHE") or Path.home() / ".cache" / "pipa")
