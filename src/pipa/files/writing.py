"""Atomic writes: a file gets a temporary name beside its place, and is then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipa.errors import PipaError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        PipaError: The file cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(data)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, path, "Choose another place.") from error


def refuse_suffix(path: Path | None, suffix: str, option: str) -> None:
    """Refuse an output with another suffix: a wrong argument would replace a file of the user's.

    Args:
        path: The file; None: it is not asked for.
        suffix: What it must end in, such as ".json".
        option: The option's name on the command line.

    Raises:
        PipaError: It ends otherwise.
    """
    if path is not None and path.suffix.lower() != suffix:
        raise PipaError(f"must end in {suffix}", f"{option} {path}")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; make its folder.

    What UTF-8 cannot hold, half of a pair in the name of a file, is written as an escape.

    Raises:
        PipaError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, path, "Choose another place.") from error
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Lend a temporary file beside `path` that takes its place if the block ends well.

    What is there and no file stays: the user may be root, and the place `/dev/stdout`.

    Args:
        path: The file to write; on an error it stays as it was.
        durable: Whether the bytes must be on the disk before the file takes its place, so that a
            power failure leaves the old file or the new one; this waits for the disk.

    Raises:
        PipaError: The place is a folder, a device, or nameless.
    """
    if not path.name or (path.exists() and not path.is_file()):
        raise PipaError("cannot be written (it is no file)", path, "Choose another place.")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if durable:
            flush_to_disk(part)
        part.replace(path)
        if durable and os.name != "nt":  # Windows cannot open a folder
            flush_to_disk(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
