"""YAML that users write: data only, no key twice, and no more values than a person would write."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipa.errors import PipaError

LONGEST = 2**22
"""Bytes of the longest file that is taken for one that a person wrote."""
MOST = 10**5
"""Values that a file may mean: nine lines of aliases can mean a thousand million."""


def read_yaml(path: Path, remedy: str = "") -> Any:
    """Read a YAML file.

    Args:
        path: The file.
        remedy: What the file should look like, for the error.

    Raises:
        PipaError: It cannot be read, is no YAML, holds a key twice, is nested too deeply, or means
            more than `MOST` values.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise PipaError("cannot be read as YAML (it is too long)", path, remedy)
        text = data.decode("utf-8-sig")
        if count(yaml.compose(text, yaml.SafeLoader), {}) > MOST:
            raise PipaError("cannot be read as YAML (it means too many values)", path, remedy)
        return yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        deep = isinstance(error, RecursionError)
        reason = "it is nested too deeply" if deep else " ".join(str(error).split())[:300]
        raise PipaError(f"cannot be read as YAML ({reason})", path, remedy) from error


def count(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Count the values that a node means, with those of its aliases.

    Args:
        node: A node of `yaml.compose`.
        known: The counts so far, by the node's identity; it is filled.

    Raises:
        ValueError: The node holds itself.
    """
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = -1  # while its parts are counted
        parts = [part for pair in node.value for part in pair] if is_mapping(node) else node.value
        inside = 0 if isinstance(node, yaml.ScalarNode) else sum(count(p, known) for p in parts)
        known[id(node)] = 1 + inside
    if known[id(node)] < 0:
        raise ValueError("a value holds itself")
    return known[id(node)]


def is_mapping(node: yaml.Node) -> bool:
    """Whether a node is a dictionary."""
    return isinstance(node, yaml.MappingNode)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one dictionary; PyYAML takes the last of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a dictionary."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # PyYAML says so
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ValueError(f"`{key}` stands twice, again in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)
