"""Kills training runs by SIGKILL, goes on with them, and compares the end with that of whole runs.

    python tests/killed_runs.py [--kills 20] [--seed 0] [--folder DIR]

Methods with state of their own (PiPa with its banks, MIC with its own teacher, AdaptSegNet with its
discriminator), with the loader in the process and in two others. Half of the kills come at a random
moment, half at a checkpoint's write: before its first byte, amid its bytes, before it takes the old
one's place, and after. `tests/e2e/test_sigkill.py` does a few of them on every change.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builders import folder
from torch import Tensor

import pipa.run.train  # noqa: F401 (the children share what is imported here)
from pipa.cli import main as command

METHODS = {
    "pipa": ("--pixel.memory=16",),
    "mic": ("--masked.teacher=own", "--masked.block=8"),
    "adaptsegnet": ("--method.adversarial=0.1",),
}
"""Methods and options that give them state beside the student's."""
AT_WRITE = ("before its first byte", "amid its bytes", "before it is in place", "after")
SHORT = (
    "--student.name=small",
    "--data.crop=32",
    "--data.batch_size=2",
    "--optim.warm_up=2",
    "--pixel.width=16",
    "--pixel.dim=8",
    "--patch.width=16",
    "--patch.dim=8",
    "--patch.memory=96",
    "--method.start=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.val_check_interval=2",
)
"""What makes a run short; it writes a checkpoint after every second step."""


def in_child(arguments: Sequence[object], before: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs `pipa` with these arguments; return its id.

    It is the code of the real command without the seconds of its imports.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        before()
        command([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; return its exit code, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at_write(moment: str, number: int) -> Callable[[], None]:
    """Return what a child must call first, to kill itself at its n-th write of a checkpoint.

    Args:
        moment: One of `AT_WRITE`.
        number: 1 for the first write.
    """
    seen: Counter[str] = Counter()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        now = moment_of(event, arguments)
        seen[now] += 1
        if now != moment or seen[now] != number:
            return
        if moment == AT_WRITE[1]:
            os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(look)


def moment_of(event: str, arguments: tuple[Any, ...]) -> str:
    """The moment of `AT_WRITE` that an audit event is; empty for others."""
    if event == "open" and str(arguments[0]).endswith("checkpoints"):  # the folder's fsync
        return AT_WRITE[3]
    if event not in ("open", "os.rename") or not is_part(arguments[0]):
        return ""
    if event == "os.rename":
        return AT_WRITE[2]
    return AT_WRITE[1] if arguments[1] is None else AT_WRITE[0]  # the file's fsync, or its opening


def is_part(path: object) -> bool:
    """Whether a path is that of a checkpoint that is being written."""
    return isinstance(path, str | Path) and ".ckpt." in str(path) and str(path).endswith(".part")


def go_on(options: Sequence[object], out: Path) -> int:
    """Continue a run that was killed, as its user would; return the exit code."""
    if (out / "results.json").exists():  # it was at its end
        return 0
    began = (out / "config.yaml").exists()
    return ended(in_child(["train", *options, f"--out={out}", *(["--resume"] if began else [])]))


def trained(run: Path) -> dict[str, Tensor]:
    """Return all numbers of a run's last checkpoint: networks, banks, optimisers, schedules."""
    found = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {name: value for part in parts for name, value in numbers(found[part], part)}


def numbers(tree: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the numbers in a tree of dictionaries and lists, with their paths."""
    if isinstance(tree, Tensor | int | float):
        yield name, torch.as_tensor(tree)
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if is_list(tree) else ()
    for key, value in pairs:
        yield from numbers(value, f"{name}.{key}")


def is_list(tree: object) -> bool:
    return isinstance(tree, list | tuple)


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of all numbers that differ between two runs, bit for bit."""
    first, second = trained(one), trained(other)
    lacking = sorted(first.keys() ^ second.keys())
    shared = sorted(first.keys() & second.keys())
    return lacking + [name for name in shared if not torch.equal(first[name], second[name])]


def options_of(method: str, workers: int, data: Path, steps: int) -> list[str]:
    """Return the options of a short run."""
    if not data.exists():
        folder(data / "source", 3)
        folder(data / "target", 3, labelled=False, shift=25, seed=50)
    given = [f"--method.name={method}", *METHODS[method], f"--data.workers={workers}"]
    where = [f"--data.source={data / 'source'}", f"--data.target={data / 'target'}"]
    return [*SHORT, *given, *where, f"--trainer.max_steps={steps}"]


def main() -> None:
    """Kill, go on, compare, print a line for each."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--kills", type=int, default=20)
    ask.add_argument("--steps", type=int, default=12)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--folder", type=Path)
    given = ask.parse_args()
    place = given.folder or Path(tempfile.mkdtemp(prefix="pipa-killed-"))
    place.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    chance = np.random.default_rng(given.seed)
    seconds: dict[str, float] = {}
    equal = 0
    for i in range(given.kills):
        method, workers = list(METHODS)[i % 3], (0, 2)[i // 3 % 2]
        options = options_of(method, workers, place / "data", given.steps)
        whole, run = place / f"{method}-{workers}", place / f"killed-{i}"
        if not whole.exists():
            since = time.perf_counter()
            assert ended(in_child(["train", *options, f"--out={whole}"])) == 0
            seconds[whole.name] = time.perf_counter() - since
        moment, code = kill(options, run, i, seconds[whole.name], chance)
        while code == 0:  # this time the run was faster than the kill
            shutil.rmtree(run)
            moment, code = kill(options, run, i, seconds[whole.name], chance)
        resumed = go_on(options, run) if code == -signal.SIGKILL else None
        found = differences(whole, run) if resumed == 0 else ["not resumed"]
        equal += not found
        how = "equal" if not found else f"DIFFERS: {', '.join(found[:3])}"
        print(f"{i + 1:3} {method:12} workers {workers}  {moment:48} {code:3} {how}", flush=True)  # noqa: T201
    print(f"{equal} of {given.kills} end as never interrupted")  # noqa: T201
    sys.exit(equal != given.kills)


def kill(
    options: Sequence[str], run: Path, turn: int, seconds: float, chance: np.random.Generator
) -> tuple[str, int]:
    """Start a run and kill it; return when, and how it ended."""
    given = ["train", *options, f"--out={run}"]
    if turn % 2:
        moment, number = AT_WRITE[turn // 2 % 4], int(chance.integers(1, 8))
        code = ended(in_child(given, kill_at_write(moment, number)))
        return f"write {number}, {moment}", code
    after = float(chance.uniform(0, 0.8 * seconds))
    child = in_child(given)
    time.sleep(after)
    os.killpg(child, signal.SIGKILL)
    return f"after {after:.2f} of {seconds:.2f} s", ended(child)


if __name__ == "__main__":
    main()
