"""The data set `streets`: Streets in the user's cache, drawn on first use."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress

from pipa.errors import PipaError
from pipa.files.cache import cache_folder
from pipa.streets.write import write_streets


def streets_folder(settings: str = "") -> Path:
    """Return the folder of Streets with these settings; draw it on first use.

    Args:
        settings: `key=value` pairs, arguments of `write_streets`, separated by commas.

    Raises:
        PipaError: A setting is unknown, or the cache cannot be written.
    """
    known = inspect.signature(write_streets).parameters.values()
    options = {p.name: p.default for p in known if isinstance(p.default, int | float)}
    options.pop("workers", None)  # does not change the files
    given = _options(settings)
    if unknown := set(given) - set(options):
        raise PipaError(f"streets has no setting {unknown.pop()}", remedy=f"{', '.join(options)}.")
    try:
        options |= {name: type(options[name])(value) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise PipaError(f"streets:{settings}: {error}") from error
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):  # another generator, other files
        digest.update(module.read_bytes())
    path = cache_folder() / f"streets-{digest.hexdigest()[:12]}"
    if not _is_whole(path):
        _draw(path, options)
    return path


def _draw(path: Path, options: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Drawing Streets, once", total=None)
            write_streets(
                path,
                **options,
                progress=lambda ready, of: bar.update(task, completed=ready, total=of),
            )
    except PipaError:
        if not _is_whole(path):  # else another process was faster
            raise
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", path) from error


def _is_whole(folder: Path) -> bool:
    return (folder / "classes.yaml").is_file()


def _options(settings: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(None, settings.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise PipaError(f"streets:{settings}: `{item}` is not key=value")
        options[name.strip()] = yaml.safe_load(value)
    return options
