"""Where pipa keeps what it can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of `$PIPA_CACHE`, else `~/.cache/pipa`; it may not exist yet."""
    return Path(os.environ.get("PIPA_CACHE") or Path.home() / ".cache" / "pipa")
