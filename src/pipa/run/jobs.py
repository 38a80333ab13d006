"""The runs of an ablation: each in a process of its own, several at a time."""

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from pipa.errors import PipaError
from pipa.evaluation.runs import read_run
from pipa.files.threads import available_cores
from pipa.run.checkpoints import has_checkpoint
from pipa.run.grid import Grid, Setting
from pipa.run.interrupt import ending_with

Task = tuple[Setting, int]
"""A row and a seed."""


def run_all(
    grid: Grid, todo: Sequence[Task], tell: Callable[[str], None], lock: int | None
) -> list[str]:
    """Run each in a process of its own, `jobs` at a time; a line for each that failed."""
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(grid.jobs):
        slots.put(slot)
    trainings: set[subprocess.Popen[bytes]] = set()

    def work(setting: Setting, seed: int) -> str | None:
        slot = slots.get()
        try:
            return run_one(grid, setting, seed, slot, lock, trainings)
        finally:
            slots.put(slot)

    faults = []
    resuming = "interrupted; the same command goes on"
    with ending_with(lambda: [*trainings], resuming), ThreadPoolExecutor(grid.jobs) as pool:
        pending = {pool.submit(work, *task): task for task in todo}
        try:
            for number, done in enumerate(as_completed(pending), 1):
                setting, seed = pending[done]
                name, fault = f"{setting.name}, seed {seed}", done.result()
                said = fault or outcome(grid.run_folder(setting, seed))
                tell(f"[{number}/{len(todo)}] {name}: {said}")
                if fault is not None:
                    faults.append(f"{name}: {fault}")
        finally:
            pool.shutdown(cancel_futures=True)
    return faults


def outcome(run: Path) -> str:
    """A finished run in a few words."""
    try:
        _, result, seconds = read_run(run)
    except PipaError as error:
        return str(error)
    return f"mIoU {result.miou:.1f}" + ("" if seconds is None else f" in {seconds:.0f} s")


def run_one(
    grid: Grid,
    setting: Setting,
    seed: int,
    slot: int,
    lock: int | None,
    trainings: set[subprocess.Popen[bytes]],
) -> str | None:
    """`pipa train` of one row and seed; what its log says last if it fails.

    While it runs it is in `trainings`.
    """
    folder = grid.run_folder(setting, seed)
    command = [sys.executable, "-m", "pipa", "train", str(folder.parent / "config.yaml")]
    command += [f"--seed={seed}", f"--out={folder}", "--trainer.enable_progress_bar=false"]
    if has_checkpoint(folder):
        command.append("--resume")  # a run that got nowhere starts anew, in the same folder
    log = folder.with_suffix(".log")
    with log.open("w", encoding="utf-8") as lines:
        running = subprocess.Popen(
            command,
            stdout=lines,
            stderr=lines,
            env=share_of_machine(grid.jobs, slot),
            pass_fds=() if lock is None else (lock,),
        )
        trainings.add(running)
        code = running.wait()
        trainings.discard(running)
    if code == 0:
        return None
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = said[-1] if said and code > 0 else f"ended with code {code}"
    return f"{last} (see {log})"


def share_of_machine(jobs: int, slot: int) -> dict[str, str]:
    """Return the environment of a run among `jobs`: its share of the cores, one of several GPUs."""
    given = dict(os.environ)
    given.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // jobs)))
    gpus = torch.cuda.device_count()
    if gpus > 1 and jobs > 1:  # a single run may use them all
        seen = given.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(index) for index in range(gpus)]
        given["CUDA_VISIBLE_DEVICES"] = names[slot % gpus]
    return given
