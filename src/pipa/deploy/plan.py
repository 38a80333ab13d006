"""The files that prediction labels, and the name of each one's outputs: no two names are equal."""

import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipa.deploy.outputs import KINDS
from pipa.errors import PipaError
from pipa.files.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES
from pipa.files.walk import files_below, without_labels

log = logging.getLogger("pipa")

VIDEO_SUFFIXES = frozenset([".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"])
"""Suffixes of videos (lower case)."""


@dataclass(frozen=True)
class Job:
    """One input and the name of its outputs, relative to OUT/KIND, without their suffix."""

    source: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    def output(self, out: Path, kind: str, suffix: str) -> Path:
        """Return the path of one kind of output."""
        return out / kind / self.name.parent / f"{self.name.name}{suffix}"


@dataclass(frozen=True)
class Plan:
    """What to label, and what lies beside it."""

    jobs: list[Job]
    """The images and videos, in the order of the inputs; a folder is sorted."""
    ignored: list[Path]
    """Files of the folders that are neither an image nor a video."""


def plan(inputs: Sequence[str | Path], out: Path, *, shard: tuple[int, int] = (1, 1)) -> Plan:
    """Find all files and name their outputs.

    Args:
        inputs: Images, videos, folders of them (searched at any depth, without label files), or
            glob patterns.
        out: The folder of the outputs; it never lies among the inputs.
        shard: (i, n), 1 <= i <= n: every n-th file from the i-th on. The names are those of the
            whole, so that n machines may write to one folder.

    Raises:
        PipaError: An input does not exist, a folder or pattern has no images or videos, `out` lies
            in a folder of inputs, a pattern matches what is in it, or `shard` is not possible.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise PipaError(f"{index}/{count}; expected I/N with 1 <= I <= N", "shard")
    found: dict[Path, Path] = {}
    ignored: dict[Path, Path] = {}
    roots = []
    for given in inputs:
        root, files, rest = _expand(Path(given), out)
        roots.append(root)
        found |= {Path(os.path.abspath(file)): file for file in files}
        ignored |= {Path(os.path.abspath(file)): file for file in rest}
    base = os.path.commonpath(roots) if roots else ""
    names = output_names([Path(os.path.relpath(path, base)) for path in found])
    jobs = [Job(path, name) for path, name in zip(found.values(), names, strict=True)]
    return Plan(jobs[index - 1 :: count], list(ignored.values()))


def output_names(files: Sequence[Path]) -> list[Path]:
    """Name the outputs of files: without their suffix where that tells them apart, else with it.

    Args:
        files: Paths, all different.
    """
    short = Counter(file.with_suffix("") for file in files)
    full = set(files)
    return [
        file if short[name] > 1 or name in full else name
        for file in files
        for name in [file.with_suffix("")]
    ]


def _expand(given: Path, out: Path) -> tuple[Path, list[Path], list[Path]]:
    """Return the absolute folder to which names are relative, the media, and other files."""
    absolute = Path(os.path.abspath(given))
    if given.is_file():
        return absolute.parent, [given], []
    if given.is_dir():
        if _is_in(out, given):
            problem = f"lies in a folder of inputs ({given}), and would be an input the next time"
            raise PipaError(problem, f"--out {out}", "Give a folder outside of it.")
        files = [file for file in files_below(given) if file.is_file()]
        media = [file for file in files if _is_medium(file)]
        if not media:
            raise PipaError("no images or videos in this folder", given, _SUFFIXES)
        media, note = without_labels(media, given)
        if note:
            log.warning("%s", note)
        return absolute, media, [file for file in files if not _is_medium(file)]
    if not glob.has_magic(str(given)):
        raise PipaError("no such file or folder", given)
    media = _matches(given, out)
    parents = [os.path.dirname(os.path.abspath(file)) for file in media]
    return Path(os.path.commonpath(parents)), media, []


def _matches(pattern: Path, out: Path) -> list[Path]:
    """Return the images and videos that match a pattern."""
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    media = [match for match in matches if match.is_file() and _is_medium(match)]
    if not media:
        raise PipaError("no images or videos match this pattern", pattern, _SUFFIXES)
    for file in media:
        if any(_is_in(file, out / kind) for kind in KINDS):
            problem = f"matches what is among the outputs ({file})"
            raise PipaError(problem, pattern, f"Give another --out than {out}, or another pattern.")
    return media


_SUFFIXES = f"Looked for {' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}."


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_medium(file: Path) -> bool:
    suffix = file.suffix.lower()
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES | FOREIGN_SUFFIXES
    return not file.name.startswith(".") and suffix in known
