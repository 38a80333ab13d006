"""The losses and gradients of student and discriminator, in numbers."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from pipa.batch import Batch
from pipa.errors import PipaError
from pipa.losses.adversarial import probability
from pipa.losses.entropy import weighted_self_information
from pipa.models.discriminator import Discriminator
from pipa.models.segmenter import Segmenter
from pipa.uda.adversarial import Adversarial
from pipa.uda.optim import Optim
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import EntropyTerm, MaskedConsistency, PatchTerm, PixelTerm
from uda.steps import CLASSES, LABELS, Feed, batch_of, batches, fit, small, trained
from uda.terms.known import Two

OPTIM = Optim(lr=1e-3, warm_up=0)


def judge(logit: float | None = None, **options) -> Discriminator:
    """A small discriminator with fixed weights; with a `logit`, that is its constant output."""
    torch.manual_seed(3)
    found = Discriminator(CLASSES, width=4, **options)
    if logit is not None:
        with torch.no_grad():
            for parameter in found.parameters():
                parameter.zero_()
            found.layers[-1].bias.fill_(logit)
    return found


def step_of(student: Segmenter | None = None, **options) -> Adversarial:
    """The method, with a small discriminator."""
    given = {"optim": OPTIM, "discriminator": judge()} | options
    return Adversarial(student or small(), LABELS, **given)


def losses_of(method: Adversarial, batch: Batch) -> list[Tensor]:
    """The student's loss, and the discriminator's on the source and on the target."""
    source, target = (
        method.show(method.student.analyse(image))
        for image in (batch.source.image, batch.target.image)
    )
    return [
        method.fool(target),
        method.teach(source, source=True),
        method.teach(target, source=False),
    ]


# Values by hand


@pytest.mark.parametrize("student", [small(), Two()], ids=["one output", "two"])
def test_the_losses_of_a_discriminator_that_always_says_the_same(student):
    """log 2 for a constant logit of 0; both halves of its own loss sum over all outputs."""
    for logit in (0.0, math.log(3)):
        found = losses_of(step_of(student, discriminator=judge(logit)), batch_of())
        as_source, as_target = math.log1p(math.exp(logit)), math.log1p(math.exp(-logit))
        expected = [as_source, as_source / 2, as_target / 2]
        assert [loss.item() for loss in found] == pytest.approx(expected)


def test_the_gradient_of_the_last_bias_by_hand():
    """sigmoid(logit) - label, halved: 3/8 from the source, -1/8 from the target."""
    discriminator = judge(math.log(3))
    fool, of_source, of_target = losses_of(step_of(discriminator=discriminator), batch_of())
    bias = discriminator.layers[-1].bias
    fool.backward()
    assert bias.grad is None
    of_source.backward()
    assert bias.grad.item() == pytest.approx(3 / 8)
    bias.grad = None
    of_target.backward()
    assert bias.grad.item() == pytest.approx(-1 / 8)


@pytest.mark.parametrize("shown", [probability, weighted_self_information])
def test_what_the_discriminator_is_shown(shown):
    seen = []
    discriminator, batch = judge(), batch_of()
    discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    losses_of(step_of(Two(), discriminator=discriminator, shown=shown), batch)
    assert [tuple(maps.shape[-2:]) for maps in seen] == [(32, 32), (16, 16)] * 3
    images = (batch.target.image, batch.source.image, batch.target.image)
    for maps, image in zip(seen[::2], images, strict=True):
        logits = F.interpolate(image[:, :, ::4, ::4], (32, 32), mode="bilinear")
        p = logits.softmax(1)
        expected = p if shown is probability else -p * p.log2() / math.log2(CLASSES)
        torch.testing.assert_close(maps, expected)
    assert [maps.requires_grad for maps in seen[::2]] == [True, False, False]


# Who learns from what


class Gradients(Callback):
    """The gradients of all parameters when the optimiser steps."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shown", [probability, weighted_self_information])
def test_in_one_step_each_player_gets_the_gradient_of_its_own_loss(shown):
    """The student has that of `L_ce^S + 0.001 L_adv`, the discriminator that of `L_d`."""
    seen, batch = Gradients(), batch_of()
    fit(step_of(shown=shown), Feed([batch]), callbacks=[seen])

    student, discriminator, bce = small().train(), judge(), nn.BCEWithLogitsLoss()

    def verdict(maps: Tensor, label: float) -> Tensor:
        logits = discriminator(shown(maps))
        return bce(logits, torch.full_like(logits, label))

    source, target = (
        F.interpolate(student.analyse(image).outputs[0].logits, (32, 32), mode="bilinear")
        for image in (batch.source.image, batch.target.image)
    )
    label = batch.source.label
    seg = F.cross_entropy(source, label, ignore_index=255, reduction="sum") / label.numel()
    students = [p for p in student.parameters() if p.requires_grad]
    expected = torch.autograd.grad(seg + 0.001 * verdict(target, 0.0), students, retain_graph=True)
    names = [f"student.{n}" for n, p in student.named_parameters() if p.requires_grad]
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(seen.found.pop(name), gradient, msg=name)

    both = (verdict(source.detach(), 0.0) + verdict(target.detach(), 1.0)) / 2
    expected = torch.autograd.grad(both, list(discriminator.parameters()))
    for (name, _), gradient in zip(discriminator.named_parameters(), expected, strict=True):
        torch.testing.assert_close(seen.found.pop(f"discriminator.{name}"), gradient, msg=name)
        assert gradient.any()
    assert not seen.found


def test_the_adversarial_gradient_reaches_the_whole_student():
    method = step_of()
    losses_of(method, batch_of())[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.student.parameters())


def test_the_weight_is_the_students_alone():
    light, heavy = (step_of(adversarial=weight) for weight in (0.001, 1.0))
    for module in (light, heavy):
        fit(module, batches(1))
    logged = [module.trainer.callback_metrics for module in (light, heavy)]
    adversarial = [metrics["loss/adversarial"].item() for metrics in logged]
    assert adversarial[1] == pytest.approx(1000 * adversarial[0])
    for name in ("loss/discriminator_source", "loss/discriminator_target"):
        assert logged[0][name] == logged[1][name]
    states = [module.state_dict() for module in (light, heavy)]
    for name, tensor in states[0].items():
        if "discriminator" in name:
            assert torch.equal(tensor, states[1][name]), name
    assert any(not torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


class Losses(Callback):
    """The values that were logged after each step."""

    def __init__(self) -> None:
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.seen.append({name: loss.item() for name, loss in trainer.callback_metrics.items()})


def test_a_discriminator_of_a_student_at_rest_learns_to_tell():
    at_rest = Optim(lr=0.0, warm_up=0)
    module, losses = step_of(optim=at_rest, discriminator=judge(lr=1e-2)), Losses()
    fit(module, Feed([batch_of()] * 30), callbacks=[losses])
    both = [
        sum(step[f"loss/discriminator_{d}"] for d in ("source", "target")) for step in losses.seen
    ]
    assert both[0] == pytest.approx(math.log(2), abs=0.05)
    assert both[-1] < math.log(2) / 2


def test_the_discriminator_has_the_optimiser_of_the_papers():
    """Adam with a learning rate of 1e-4, betas 0.9 and 0.99, that falls with the student's."""
    module, losses = step_of(optim=Optim(lr=1e-3, warm_up=0, power=0.9)), Losses()
    before = {n: p.detach().clone() for n, p in module.discriminator.named_parameters()}
    gradients = Gradients()
    fit(module, batches(1), steps=10, callbacks=[losses, gradients])
    *students, group = module.optimizers().param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0.0)
    assert {g["betas"] for g in students} == {(0.9, 0.999)}
    assert group["lr"] == pytest.approx(1e-4 * 0.9**0.9)
    assert {id(p) for p in group["params"]} == {id(p) for p in module.discriminator.parameters()}
    for name, parameter in module.discriminator.named_parameters():
        gradient = gradients.found[f"discriminator.{name}"]
        step = 1e-4 * gradient / (gradient.abs() + 1e-8)  # Adam's first
        torch.testing.assert_close(parameter, before[name] - step)


# Whole steps

METHODS = {
    "advent": {"adversarial": 0.1},
    "adaptsegnet": {"adversarial": 0.1, "shown": probability},
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("further", [False, True], ids=["alone", "with PiPa"])
@pytest.mark.parametrize("name", METHODS)
def test_five_steps(name, further, precision):
    terms = {
        "source_terms": [PixelTerm(width=16, dim=8)],
        "target_terms": [PatchTerm(threshold=0.3, width=16, dim=8, memory=30)],
    }
    module = step_of(jitter_source=True, **METHODS[name], **(terms if further else {}))
    before = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    after = trained(module, 5, precision=precision)
    for key, tensor in after.items():
        assert tensor.isfinite().all(), key
    for key, tensor in before.items():
        assert not torch.equal(tensor, after[key]), key
    names = ["source", "adversarial", "discriminator_source", "discriminator_target"]
    names += ["pixel", "patch"] if further else []
    assert set(module.trainer.callback_metrics) == {f"loss/{name}" for name in names}
    source_only = SourceOnly(small(), LABELS, optim=OPTIM, jitter_source=True)
    alone = trained(source_only, 5, precision=precision)
    assert any(not torch.equal(tensor, after[key]) for key, tensor in alone.items())
    assert module.last_step.pseudo is None


@pytest.mark.parametrize("jitter", [False, True])
def test_before_the_start_the_source_trains_alone(jitter):
    module = step_of(target_terms=[EntropyTerm()], start=3, jitter_source=jitter, seed=4)
    alone = SourceOnly(small(), LABELS, optim=OPTIM, jitter_source=jitter, seed=4)
    found, expected = trained(module), trained(alone)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert set(module.trainer.callback_metrics) == {"loss/source"}


def test_a_crop_smaller_than_the_discriminators_reach():
    feed = Feed([batch_of(side=16), batch_of(1, side=24)])
    module = step_of()
    fit(module, feed)
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_without_a_target_the_student_learns_from_the_source():
    module = step_of(target_terms=[EntropyTerm()])
    fit(module, Feed([Batch(batch_of().source)]))
    assert set(module.trainer.callback_metrics) == {"loss/source"}


def test_nothing_waits_for_the_device():
    method, batch = step_of(), batch_of()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for loss in losses_of(method, batch):
            loss.backward(retain_graph=True)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_game_without_the_students_loss_is_refused(weight):
    with pytest.raises(PipaError, match=r"--method.adversarial: .*must be above 0.*source_only"):
        step_of(adversarial=weight)


def test_a_term_that_needs_a_teacher_is_refused():
    with pytest.raises(PipaError, match="term masked: learns from a teacher"):
        step_of(target_terms=[EntropyTerm(), MaskedConsistency()])
    step_of(target_terms=[EntropyTerm(), MaskedConsistency(teacher="own")])
