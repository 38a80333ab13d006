"""Class tables that users write: `classes.yaml`, or a list of names.

    0: {name: sky, color: [128, 128, 128], cityscapes: [10]}
    1: {name: building, color: [128, 0, 0], cityscapes: [2]}
    ignore: [250, [0, 0, 0]]

`color` and `cityscapes` may be left out, an entry may be just the name, the whole file may be a
list of names. `ignore` lists ids and colours that are no class. `docs/labels.md` explains it;
`other_forms` recognises what other tools write.
"""

import os
import reprlib
from pathlib import Path
from typing import Any

from pipa.classes import CITYSCAPES, IGNORE_INDEX, Colour, LabelSpace
from pipa.data import labelmap
from pipa.data.labels import TRAIN_IDS, ClassTable, ids_table
from pipa.data.other_forms import right_form
from pipa.errors import PipaError
from pipa.files.paint import distinct_colours
from pipa.files.plain_yaml import read_yaml

FILE = "classes.yaml"
_EXAMPLE = (
    "It should look like `0: {name: road, color: [128, 64, 128]}`, one line per class, "
    "or be a list of names."
)
_IGNORED = "It should look like `ignore: [250, [0, 0, 0]]`: ids, and colours, that are no class."


def class_table(text: str) -> ClassTable:
    """Return the table that the option `classes` names.

    Args:
        text: "cityscapes", a path of a class table (classes.yaml, labelmap.txt) or of the folder
            that holds it, or names separated by commas ("background,nucleus").

    Raises:
        PipaError: It is none of these, or the file is wrong.
    """
    if text == "cityscapes":
        return TRAIN_IDS
    path = Path(text).expanduser()
    if os.path.isdir(path) and (found := table_in(path)):  # `Path` fails at a name too long
        return found
    if os.path.isfile(path):
        return read_table(path)
    if "," in text and not text.endswith((".yaml", ".yml")):
        return named(tuple(name.strip() for name in text.split(",")), "the option `classes`")
    raise PipaError(
        f"classes: {text[:200]} is no file",
        remedy='Give a classes.yaml, "cityscapes", or the names separated by commas.',
    )


def find_table(root: Path) -> ClassTable | None:
    """Read the table in a folder or in its parent; None if there is none.

    A link to a folder has two parents: the folder that holds the link comes first.
    """
    beside_target = Path(os.path.realpath(root)).parent
    return table_in(root) or table_in(root.absolute().parent) or table_in(beside_target)


def table_in(folder: Path) -> ClassTable | None:
    """Read the `classes.yaml`, or else the `labelmap.txt`, in a folder; None if there is none."""
    for name in (FILE, labelmap.FILE):
        if (folder / name).is_file():
            return read_table(folder / name)
    return None


def read_table(path: Path) -> ClassTable:
    """Read a class table.

    Raises:
        PipaError: The file is no YAML, or holds something else than classes.
    """
    if path.suffix == ".txt":
        return labelmap.read_labelmap(path)
    content = read_yaml(path, _EXAMPLE)
    if (meant := right_form(content)) is not None:
        raise PipaError("holds classes in another form", path, meant)
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict) or not content:
        raise PipaError("holds no classes", path, _EXAMPLE)
    ignored = content.pop("ignore", [])
    entries = {_id(key, path): _entry(value, path) for key, value in content.items()}
    return _table(dict(sorted(entries.items())), ignored, path)


def named(names: tuple[str, ...], origin: str) -> ClassTable:
    """Return a table of the ids 0..k-1 with these names and distinct colours."""
    return ids_table(LabelSpace(names, distinct_colours(len(names))), origin)


def no_table(root: Path, found: list[str]) -> PipaError:
    """Return the error about a data set without a class table.

    Args:
        root: The data set's folder.
        found: The ids, or colours, in its first label files.
    """
    problem = f"no class table; its label files hold {', '.join(found[:20])}"
    if found == ["0", "255"]:
        remedy = f"Write `0: background` and `255: object`, with your names, in {root / FILE}."
        return PipaError(problem, root, remedy)
    names = ",".join(f"name{i}" for i in range(max(2, len(found))))
    return PipaError(
        problem,
        root,
        f"Write {root / FILE} with one line per id, `0: {{name: road, color: [128, 64, 128]}}`, or "
        f'give the names, `--data.classes "{names}"` (`--classes` of other commands than train).',
    )


def _id(key: Any, path: Path, remedy: str = _EXAMPLE) -> int:
    if type(key) is not int or not 0 <= key <= IGNORE_INDEX:
        raise PipaError(f"`{str(key)[:80]}` is no id; expected 0 to 255", path, remedy)
    return key


def _entry(value: Any, path: Path) -> dict[str, Any]:
    entry = {"name": value} if isinstance(value, str) else value
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise PipaError(f"`{short(value)}` has no name", path, _EXAMPLE)
    unknown = set(entry) - {"name", "color", "colour", "cityscapes"}
    if unknown:
        raise PipaError(
            f"`{unknown.pop()}` of class {entry['name']} is not known",
            path,
            "A class has a name, a color and a list `cityscapes` of Cityscapes train ids.",
        )
    groups = entry.get("cityscapes", [])
    known = range(CITYSCAPES.num_classes)
    if not isinstance(groups, list) or not all(group in known for group in groups):
        raise PipaError(
            f"`cityscapes` of class {entry['name']} is {short(groups)}; "
            "expected a list of ids 0 to 18",
            path,
        )
    return entry


def _table(entries: dict[int, dict[str, Any]], ignored: Any, path: Path) -> ClassTable:
    """Build the table, with the classes in the order of their ids; choose missing colours."""
    if len(entries) > 250:
        raise PipaError(f"{len(entries)} classes; at most 250 are possible", path)
    spare = distinct_colours(len(entries))
    ids: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    shown = []
    for place, (raw, entry) in enumerate(entries.items()):
        given = entry.get("color", entry.get("colour"))
        shown.append(spare[place] if given is None else _colour(given, path))
        ids[raw] = place
        if given is not None:
            colours.setdefault(shown[-1], raw)
    names = tuple(entry["name"] for entry in entries.values())
    if len(set(names)) < len(names):
        raise PipaError("two classes have the same name", path)
    _ignore(ignored if isinstance(ignored, list) else [ignored], ids, colours, path)
    if not names:
        raise PipaError("holds no classes", path, _EXAMPLE)
    groups = tuple(tuple(entry.get("cityscapes", [])) for entry in entries.values())
    space = LabelSpace(names, tuple(shown), groups if any(groups) else ())
    return ClassTable(space, ids, colours, str(path))


def _ignore(items: list[Any], ids: dict[int, int], colours: dict[Colour, int], path: Path) -> None:
    """Enter the ids and colours that are no class into both tables."""
    none = IGNORE_INDEX
    while ids.get(none, IGNORE_INDEX) != IGNORE_INDEX:  # 255 may be a class of the label files
        none -= 1
    for item in items:
        if isinstance(item, list):
            colour = _colour(item, path)
            if none != IGNORE_INDEX:
                ids[none] = IGNORE_INDEX
            if colours.setdefault(colour, none) != none:
                raise PipaError(f"{list(colour)} is a class's colour, and under `ignore`", path)
        elif ids.setdefault(_id(item, path, _IGNORED), IGNORE_INDEX) != IGNORE_INDEX:
            raise PipaError(f"{item} is a class, and under `ignore`", path)


def short(value: Any) -> str:
    """Show the beginning of a value: a few lines of YAML can mean a thousand million."""
    return reprlib.repr(value)[:200]


def _colour(value: Any, path: Path) -> Colour:
    if not isinstance(value, list) or len(value) != 3:
        raise PipaError(f"{short(value)} is no colour; expected [red, green, blue]", path)
    if not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        raise PipaError(f"{short(value)} is no colour; each of its values is 0 to 255", path)
    red, green, blue = value
    return red, green, blue
