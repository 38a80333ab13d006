"""What the options `source`, `target`, `validation` say: `[FORMAT[/SPLIT]:]PATH`.

- `./synthetic`: a folder with `images/` and `labels/`;
- `gta5:/data/gta5`: an original layout;
- `cityscapes/val:/data/cityscapes`: another split than the role's own;
- `streets`: the built-in benchmark; `streets:gap=0.3,seed=1` with other settings.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.progress import Progress

from pipa.data import files
from pipa.data.files import Files
from pipa.errors import PipaError

Role = Literal["source", "target", "validation"]

_WHOLE: dict[str, Callable[[Path, bool], Files]] = {
    "folder": files.folder,
    "gta5": files.gta5,
    "synthia": files.synthia,
    "list": files.listing,
}
_SPLIT: dict[str, Callable[[Path, str, bool], Files]] = {
    "cityscapes": files.cityscapes,
    "acdc": files.acdc,
    "dark_zurich": files.dark_zurich,
}
FORMATS = (*_WHOLE, *_SPLIT, "streets")


def find(spec: str, role: Role, default: str = "folder") -> Files:
    """List the files that a specification names; those of a target without labels.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        role: What the data is for: decides the split, and that a target has no labels.
        default: Format of a path without one.

    Raises:
        PipaError: The format is unknown, the files are not where they should be, or an image has
            no label.
    """
    files = find_all(spec, role, default, labelled=role != "target")
    if files.faults:
        raise files.faults[0]
    return files


def find_all(spec: str, role: Role, default: str = "folder", *, labelled: bool) -> Files:
    """The same, with the images that lack a label listed instead of raised.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        role: What the data is for: decides the split, and that a target has no labels.
        default: Format of a path without one.
        labelled: Whether to look for labels.

    Raises:
        PipaError: The format is unknown, or the files are not where they should be.
    """
    kind, split, path = parse(spec, default)
    if kind == "streets":
        part = split or {"source": "source", "target": "target", "validation": "val"}[role]
        return files.folder(streets_folder(path) / part, labelled)
    split = split or {"source": "train", "target": "train", "validation": "val"}[role]
    root = Path(path).expanduser()
    if kind in _SPLIT:
        return _SPLIT[kind](root, split, labelled)
    return _WHOLE[kind](root, labelled)


def parse(spec: str, default: str = "folder") -> tuple[str, str, str]:
    """Take a specification apart: format, split (may be empty), path.

    Raises:
        PipaError: The format is unknown.
    """
    head, colon, path = spec.partition(":")
    kind, _, split = head.partition("/")
    if kind == "streets" and (colon or "/" not in head or not Path(spec).exists()):
        return kind, split, path
    if colon and kind in FORMATS:
        return kind, split, path
    if default not in FORMATS:
        raise PipaError(f"the format {default} is not known", remedy=f"Known: {_known()}.")
    if colon and len(head) > 1 and not Path(spec).exists():  # one letter: a drive of Windows
        raise PipaError(f"the format {head} is not known", spec, f"Known: {_known()}.")
    return default, "", spec


def streets_folder(settings: str = "") -> Path:
    """The folder of Streets with these settings, in the user's cache; written on first use.

    Args:
        settings: `key=value` pairs, arguments of `write_streets`, separated by commas.

    Raises:
        PipaError: A setting is not known, or the cache cannot be written.
    """
    from pipa import streets

    known = inspect.signature(streets.write_streets).parameters.values()
    options = {p.name: p.default for p in known if isinstance(p.default, int | float)}
    options.pop("workers", None)  # makes no difference to the files
    given = _options(settings)
    if strange := set(given) - set(options):
        raise PipaError(f"streets has no setting {strange.pop()}", remedy=f"{', '.join(options)}.")
    try:
        options |= {name: type(options[name])(value) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise PipaError(f"streets:{settings}: {error}") from error
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for module in sorted(Path(streets.__path__[0]).glob("*.py")):  # another generator, other files
        digest.update(module.read_bytes())
    path = cache_folder() / f"streets-{digest.hexdigest()[:12]}"
    if not _is_whole(path):
        _write_streets(path, options)
    return path


def _write_streets(path: Path, options: dict[str, Any]) -> None:
    from pipa.streets import write_streets

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


def _is_whole(streets: Path) -> bool:
    return (streets / "classes.yaml").is_file()


def cache_folder() -> Path:
    """Where what can be made again is kept: `$PIPA_CACHE`, else `~/.cache/pipa`."""
    return Path(os.environ.get("PIPA_CACHE") or Path.home() / ".cache" / "pipa")


def _options(settings: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(None, settings.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise PipaError(f"streets:{settings}: `{item}` is not key=value")
        options[name.strip()] = yaml.safe_load(value)
    return options


def _known() -> str:
    return ", ".join(FORMATS)
