"""Compiled, checkpointed and split steps learn what plain ones learn."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from uda.steps import LABELS, Feed, batch_of, fit, small, trained

import pipa
from pipa.batch import Labelled
from pipa.errors import PipaError
from pipa.files.words import spelled_out
from pipa.run.recipes import MethodOptions, build_method, chosen_terms
from pipa.run.speed import CompileParts, Speed, accumulate, checkpoint_blocks
from pipa.uda.method import Method
from pipa.uda.optim import Optim
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import FeatureDistance, MaskedConsistency, default_terms

NO_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")
INDUCTOR = pytest.param("inductor", marks=NO_COMPILER)
"""What `--compile` takes."""
TINY = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "drop_path_rate": 0.0}
SMALL_MOBILENET = {"depth_multiplier": 0.1, "min_depth": 8, "freeze_norms": False}


def pipa_on(network: str, **options) -> Method:
    """PiPa with feature distance, on random weights."""
    torch.manual_seed(0)
    student = pipa.create_segmenter(network, LABELS.num_classes, **options)
    sections = default_terms() | {"feature_distance": FeatureDistance(classes=[0, 1])}
    terms = chosen_terms(MethodOptions("pipa"), sections)
    optim = Optim(lr=1e-3, warm_up=0)
    return build_method(MethodOptions("pipa"), student, LABELS, terms, optim=optim, pretrained=True)


class Kept(Callback):
    """The losses of every step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, module, *unused):
        self.losses.append({name: float(loss) for name, loss in module.losses.items()})


class NoMoreGraphs(Callback):
    """Makes it an error to compile anything after the second step."""

    def on_train_batch_end(self, trainer, module, *unused):
        if trainer.global_step == 2:
            torch._dynamo.config.error_on_recompile = True


def losses_of(method: Method, *callbacks: Callback, side: int = 32) -> list[dict[str, float]]:
    kept = Kept()
    batches = Feed([batch_of(seed, side=side) for seed in range(4)])
    validation = Feed([Labelled(*(part[:1, ..., :24] for part in batch_of().source))])
    fit(
        method,
        batches,
        validation=validation,
        callbacks=[*callbacks, kept],
        val_check_interval=1,
        num_sanity_val_steps=0,
    )
    return kept.losses


def compiled_beside_plain(backend: str) -> dict[str, list[dict[str, float]]]:
    """The losses of both; an error if a graph breaks, or one is made after the second step."""
    name, side, options = "small", 32, {}
    if backend == "aot_eager":  # inductor takes minutes, even for the smallest network
        name, side = "hrda_mit_b0", 64
        head = {"width": 8, "dropout": 0.0}
        options = {"backbone": {"settings": TINY}, "head": head, "detail": 32}
    plain = losses_of(pipa_on(name, **options), side=side)
    compiled = losses_of(pipa_on(name, **options), CompileParts(backend), NoMoreGraphs(), side=side)
    return {"plain": plain, "compiled": compiled}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
def test_compiled_steps_have_the_losses_of_plain_ones_and_one_set_of_graphs(backend):
    # In a process of its own: the checks of shapes around our functions cannot be compiled.
    path = os.pathsep.join(map(str, (Path(pipa.__file__).parents[1], Path(__file__).parents[1])))
    command = [sys.executable, "-W", "ignore", __file__, backend]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["plain"][-1].keys() == {"source", "pixel", "feature_distance", "mixed", "patch"}
    for step, expected in zip(found["compiled"], found["plain"], strict=True):
        assert step == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_checkpointed_steps_have_the_losses_of_plain_ones():
    options = {"backbone": {"settings": TINY | {"drop_path_rate": 0.5}}, "head": {"width": 8}}
    plain, checkpointed = (pipa_on("daformer_mit_b0", **options) for _ in range(2))
    checkpoint_blocks(checkpointed.student)
    assert losses_of(checkpointed) == losses_of(plain)


def test_a_checkpointed_step_counts_a_batch_in_its_norms_once():
    options = {"backbone": {"settings": SMALL_MOBILENET}, "head": {"width": 8}}
    plain, checkpointed = (pipa_on("fpn_mobilenet_v2", **options) for _ in range(2))
    checkpoint_blocks(checkpointed.student)
    states = [trained(method, count=2) for method in (plain, checkpointed)]
    names = [name for name in states[0] if "running" in name or "tracked" in name]
    assert names
    for name in names:
        torch.testing.assert_close(states[1][name], states[0][name], msg=name)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole():
    def learn(parts: int) -> dict[str, torch.Tensor]:
        method = SourceOnly(small(), LABELS, optim=Optim(lr=1e-3, warm_up=0)).double()
        if parts > 1:
            accumulate(method, parts, batch_size=4)
        batches = Feed([batch_of(seed, b=4) for seed in range(3)])
        fit(method, batches, precision="64-true")
        return method.state_dict() | {"loss": method.losses["source"]}

    whole, found = learn(1), learn(2)
    for name, expected in whole.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_the_teacher_follows_once_for_all_parts():
    def teacher(parts: int) -> dict[str, torch.Tensor]:
        method = pipa_on("small")
        method.optim.lr = 0.0
        with torch.no_grad():
            for weight in method.teacher.network.parameters():
                weight.zero_()
        if parts > 1:
            accumulate(method, parts, batch_size=2)
        return trained(method, count=3)

    one, two = teacher(1), teacher(2)
    for name in (name for name in one if name.startswith("teacher.network.")):
        torch.testing.assert_close(two[name], one[name])


def test_parts_that_cannot_be_are_refused():
    with pytest.raises(PipaError, match=r"--accumulate: is 3, and a batch has 2 images"):
        Speed(accumulate=3).prepare(SourceOnly(small(), LABELS), batch_size=2)
    term = MaskedConsistency(teacher="own")
    with pytest.raises(PipaError, match="teacher of a term"):
        accumulate(SourceOnly(small(), LABELS, target_terms=[term]), 2, batch_size=2)
    with pytest.raises(PipaError, match="accumulate"):
        Speed(accumulate=0)


def test_a_bare_switch_is_true():
    words = ["--compile", "--seed", "1", "--checkpoint"]
    assert spelled_out(words) == ["--compile=true", "--seed", "1", "--checkpoint=true"]
    assert spelled_out(["--compile", "false"]) == ["--compile", "false"]


STEPS_OF_128_MIB = """
import resource, torch
from pipa.run.speed import keep_freed_memory

keep_freed_memory()
for step in range(7):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(2**22) for _ in range(8)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_step_takes_the_memory_that_the_last_one_has_freed():
    command = [sys.executable, "-c", STEPS_OF_128_MIB]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults < 2**15  # of 5 x 2**15 pages


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compiled_beside_plain(sys.argv[1])))
