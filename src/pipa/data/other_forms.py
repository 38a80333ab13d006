"""Class tables in the forms of other tools and of first attempts: recognised, and shown right.

names: [road, sky]              # YOLO; also `names: {0: road, 1: sky}`, `classes: ...`
road: 0                         # the wrong way round
road: [128, 64, 128]            # names and colours
- {id: 0, name: road}           # COCO's categories
"0": road                       # ids as text
road, sky                       # names on a line
"""

from typing import Any

SHOWN = 3
"""How many classes the right form is shown for."""


def right_form(content: Any) -> str | None:
    """Return a remedy that shows the classes in the form of `classes.yaml`.

    Args:
        content: What was read from the file.

    Returns:
        A sentence; None for the right form, and for what cannot be understood.
    """
    classes = understood(content)
    if not classes:
        return None
    lines = [f"`{number}: {entry}`" for number, entry in list(classes.items())[:SHOWN]]
    more = f", ... ({len(classes)} classes)" if len(classes) > SHOWN else ""
    return f"Write {', '.join(lines)}{more}, one line per class."


def understood(content: Any) -> dict[int, str]:
    """Return the entry of each id, as text; nothing for the right form, or for no form at all."""
    if isinstance(content, str):
        names = [name.strip() for name in content.replace(",", " ").split()]
        return dict(enumerate(names)) if len(names) > 1 else {}
    if isinstance(content, list):
        return _categories(content)
    if not isinstance(content, dict):
        return {}
    for key in ("names", "classes", "labels", "categories"):
        if isinstance(inside := content.get(key), list | dict | str):
            return understood(inside) or _plain(inside)
    entries = {key: value for key, value in content.items() if key != "ignore"}
    if not entries or not all(isinstance(key, str) for key in entries):
        return {}
    return _by_name(entries)


def _categories(items: list[Any]) -> dict[int, str]:
    """Read `[{id: 0, name: road}, ...]`."""
    found = {}
    for item in items:
        if not isinstance(item, dict) or not _is_id(item.get("id")) or "name" not in item:
            return {}
        found[item["id"]] = str(item["name"])[:80]
    return found


def _plain(inside: Any) -> dict[int, str]:
    """Read `[road, sky]` and `{0: road, 1: sky}`."""
    pairs = dict(enumerate(inside)) if isinstance(inside, list) else inside
    if not isinstance(pairs, dict) or not all(_is_id(key) for key in pairs):
        return {}
    named = {key: value for key, value in pairs.items() if isinstance(value, str)}
    return {key: value[:80] for key, value in named.items()} if len(named) == len(pairs) else {}


def _by_name(entries: dict[str, Any]) -> dict[int, str]:
    """Read `{road: 0}`, `{road: [128, 64, 128]}` and `{"0": road}`."""
    if all(_is_id(value) for value in entries.values()):
        return {value: key[:80] for key, value in sorted(entries.items(), key=lambda e: e[1])}
    if all(isinstance(value, list) and len(value) == 3 for value in entries.values()):
        return {
            i: f"{{name: {name[:80]}, color: {value}}}"
            for i, (name, value) in enumerate(entries.items())
            if all(_is_id(number) for number in value)
        }
    if all(key.isdecimal() and isinstance(value, str) for key, value in entries.items()):
        return {int(key): value[:80] for key, value in entries.items()}
    return {}


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255
