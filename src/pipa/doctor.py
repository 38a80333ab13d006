"""A report on this machine and installation, to be sent with every issue.

Nothing here raises: a check that fails becomes a line of the report.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipa.files.cache import cache_folder

GIB = 1024**3


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    value: str
    state: str = "ok"
    """ "ok", or advice."""


def diagnose() -> list[Finding]:
    """Look at Python, PyTorch, devices, memory, disk, dependencies and the cache; never fails."""
    probes = (_system, _torch, _cuda, _mps, _memory, _disk, _shared_memory, _cache, _packages)
    return [finding for probe in probes for finding in _safely(probe)]


def _safely(probe: Callable[[], Iterator[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(probe())
    except Exception as error:  # noqa: BLE001 (a report is better than a traceback)
        name = probe.__name__.strip("_").replace("_", " ")
        found.append(Finding(name, f"{type(error).__name__}: {error}", "Could not be examined."))
    return found


def _system() -> Iterator[Finding]:
    from pipa import __version__
    from pipa.files.threads import available_cores

    yield Finding("pipa", __version__)
    version = sys.version_info
    old = "pipa needs Python 3.11 or later." if version < (3, 11) else "ok"
    yield Finding("python", f"{platform.python_version()} ({sys.executable})", old)
    yield Finding("platform", platform.platform())
    yield Finding("cores", str(available_cores()))


def _torch() -> Iterator[Finding]:
    import torch

    build = torch.version.cuda or torch.version.hip or "CPU only"
    threads = torch.get_num_threads()
    yield Finding("torch build", f"{torch.__version__} for {build}, {threads} threads")


def _cuda() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        present = shutil.which("nvidia-smi") is not None
        hint = "A driver is here, but torch cannot use it: install a CUDA build of torch."
        yield Finding("cuda", "none", hint if present else "ok")
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        kind = (
            "bf16"
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else "no bf16: use precision 16-mixed"
        )
        value = f"{about.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, {kind}"
        busy = "Another process holds most of its memory." if free < total / 2 else "ok"
        yield Finding(f"cuda:{index}", value, busy)


def _mps() -> Iterator[Finding]:
    import torch

    if platform.system() == "Darwin":
        yield Finding("mps", "yes" if torch.backends.mps.is_available() else "none")


def _memory() -> Iterator[Finding]:
    free, total = memory()
    hint = "Training needs about 2 GiB; close something." if free < 2 * GIB else "ok"
    yield Finding("memory", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free", hint)


def _disk() -> Iterator[Finding]:
    here = Path.cwd()
    use = shutil.disk_usage(here)
    hint = "Checkpoints may not fit." if use.free < 5 * GIB else "ok"
    yield Finding("disk", f"{use.free / GIB:.1f} GiB free in {here}", hint)


def _shared_memory() -> Iterator[Finding]:
    place = Path("/dev/shm")
    if place.is_dir():
        total = shutil.disk_usage(place).total
        hint = "Loader processes may die: docker run --shm-size=8g, or --data.workers 0."
        yield Finding("shared memory", f"{total / GIB:.1f} GiB", hint if total < GIB else "ok")


def _cache() -> Iterator[Finding]:
    folder = cache_folder()
    # The folder itself is not made: a diagnosis should leave nothing behind.
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        hint = "Set PIPA_CACHE to a folder that can be written."
        yield Finding("cache", f"{folder} ({error.strerror})", hint)
    else:
        yield Finding("cache", str(folder))


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in importlib.metadata.requires("pipa-uda") or ()]
    for needed in requirements:
        extra = _extra_of(needed.marker)
        if extra not in ("docs", "dev"):  # users need neither
            yield _package(needed.name, needed.specifier, extra)


def _extra_of(marker: object) -> str:
    """The extra that asks for a requirement; empty if all installations need it."""
    found = re.search(r'extra == "([\w-]+)"', str(marker))
    return found[1] if found else ""


def _package(name: str, wanted: object, extra: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    what = f"{name} ({extra})" if extra else name
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if extra:
            return Finding(what, "not installed", f'Optional: pip install "pipa-uda[{extra}]"')
        return Finding(what, "not installed", f'pip install "{name}{wanted}"')
    assert isinstance(wanted, SpecifierSet)
    fits = wanted.contains(version, prereleases=True)
    return Finding(what, version, "ok" if fits else f'pip install "{name}{wanted}"')


def memory() -> tuple[int, int]:
    """Return free and total memory in bytes, within the limit of a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    info = Path("/proc/meminfo")
    if info.exists():
        kib = dict(line.split(":") for line in info.read_text().splitlines())
        free = int(kib["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists():
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            total = min(total, int(limit))
            used = int((group / "memory.current").read_text())
            free = min(free, max(0, total - used))
    return free, total
