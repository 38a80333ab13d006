"""Adaptation without a teacher: who learns what from whom, in numbers; and what it refuses."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from steps import CLASSES, LABELS, Feed, batch_of, fit, small
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from pipa.batch import Batch, Box
from pipa.errors import PipaError
from pipa.losses.adversarial import probability
from pipa.losses.entropy import entropy, weighted_self_information
from pipa.models.discriminator import Discriminator
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.uda.alignment import Alignment
from pipa.uda.alignment_terms import EntropyTerm, adversarial_terms
from pipa.uda.optim import Optim
from pipa.uda.pipa_terms import PatchTerm, PixelTerm
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import FeatureDistance, MaskedConsistency, ViewsTerm

OPTIM = Optim(lr=1e-3, warm_up=0)


def judge(logit: float | None = None, **options) -> Discriminator:
    """A small discriminator, always with the same weights; with a `logit` it always says that."""
    torch.manual_seed(3)
    found = Discriminator(CLASSES, width=4, **options)
    if logit is not None:
        with torch.no_grad():
            for parameter in found.parameters():
                parameter.zero_()
            found.layers[-1].bias.fill_(logit)
    return found


def game(discriminator: Discriminator, **options) -> dict:
    """The terms of a game, as `Alignment` takes them."""
    source_term, target_terms = adversarial_terms(discriminator, **options)
    return {"source_terms": [source_term], "target_terms": target_terms}


def align(student: Segmenter | None = None, **options) -> Alignment:
    return Alignment(student or small(), LABELS, **({"optim": OPTIM} | options))


def batches(count: int = 3) -> Feed:
    return Feed([batch_of(seed) for seed in range(count)])


def trained(module, count: int = 3, **options) -> dict[str, Tensor]:
    fit(module, batches(count), **options)
    return module.state_dict()


class Two(Segmenter):
    """A network of one parameter that answers twice, as HRDA: for the image, and for its corner."""

    def __init__(self) -> None:
        super().__init__(CLASSES)
        self.scale = nn.Parameter(torch.ones(()))

    def context(self, image: Tensor) -> View:
        return View([image[:, :, ::4, ::4] * self.scale], Box(slice(0, 32), slice(0, 32)))

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        part = Output(view.features[0][..., :4, 2:6] * 3, Box(slice(0, 16), slice(8, 24)), 0.1)
        return Prediction([Output(view.features[0], view.box, 0.9), part], view, view)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.context(image).features[0], image.shape[-2:], mode="bilinear")


# Values by hand


def test_the_entropy_of_all_outputs_by_their_share():
    student, batch = Two(), batch_of()
    expected = 0.0
    for output, size in zip(student.analyse(batch.target.image).outputs, (32, 16), strict=True):
        logits = F.interpolate(output.logits, (size, size), mode="bilinear")
        log = logits.log_softmax(1)
        expected += output.weight * -(log.exp() * log).sum(1).mean() / math.log(CLASSES)
    found = EntropyTerm()(student, batch, None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert student.scale.grad < 0  # larger logits, less entropy
    student.scale.data.zero_()
    assert EntropyTerm()(student, batch, None).item() == pytest.approx(1)


@pytest.mark.parametrize("student", [small(), Two()], ids=["one output", "two"])
def test_the_losses_of_a_discriminator_that_always_says_the_same(student):
    """log 2 where it cannot tell; the halves of its own loss are halves, over all outputs."""
    batch = batch_of()
    for logit in (0.0, math.log(3)):
        half, (fool, other) = adversarial_terms(judge(logit))
        found = [
            half(student.analyse(batch.source.image), batch.source),
            fool(student, batch, None),
            other(student, batch, None),
        ]
        as_source, as_target = math.log1p(math.exp(logit)), math.log1p(math.exp(-logit))
        expected = [as_source / 2, as_source, as_target / 2]
        assert [loss.item() for loss in found] == pytest.approx(expected)


def test_the_gradient_of_the_last_bias_by_hand():
    """sigmoid(logit) - label, halved: 3/8 from the source, -1/8 from the target."""
    student, batch, discriminator = small(), batch_of(), judge(math.log(3))
    half, (fool, other) = adversarial_terms(discriminator)
    bias = discriminator.layers[-1].bias
    half(student.analyse(batch.source.image), batch.source).backward()
    assert bias.grad.item() == pytest.approx(3 / 8)
    bias.grad = None
    fool(student, batch, None).backward()
    assert bias.grad is None
    other(student, batch, None).backward()
    assert bias.grad.item() == pytest.approx(-1 / 8)


@pytest.mark.parametrize("shown", [probability, weighted_self_information])
def test_what_the_discriminator_is_shown(shown):
    seen = []
    discriminator = judge()
    discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    student, batch = Two(), batch_of()
    half, (fool, other) = adversarial_terms(discriminator, shown=shown)
    half(student.analyse(batch.source.image), batch.source)
    fool(student, batch, None)
    other(student, batch, None)
    assert [tuple(maps.shape[-2:]) for maps in seen] == [(32, 32), (16, 16)] * 3
    for maps, image in zip(seen[::2], (batch.source.image, *[batch.target.image] * 2), strict=True):
        logits = F.interpolate(image[:, :, ::4, ::4], (32, 32), mode="bilinear")
        p = logits.softmax(1)
        expected = p if shown is probability else -p * p.log2() / math.log2(CLASSES)
        torch.testing.assert_close(maps, expected)
    assert [maps.requires_grad for maps in seen[::2]] == [False, True, False]


# Who learns from what


class Gradients(Callback):
    """What everybody's gradient is when the optimiser steps."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shown", [probability, weighted_self_information])
def test_in_one_step_each_player_gets_the_gradient_of_its_own_loss(shown):
    """The student that of `L_ce^S + 0.001 L_adv`, the discriminator that of `L_d`, unweighted."""
    seen, batch = Gradients(), batch_of()
    fit(align(**game(judge(), shown=shown)), Feed([batch]), callbacks=[seen])

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
        (found,) = (seen.found.pop(n) for n in [*seen.found] if n.endswith(f"discriminator.{name}"))
        torch.testing.assert_close(found, gradient, msg=name)
        assert gradient.any()
    assert not seen.found


def test_the_adversarial_gradient_reaches_the_whole_student():
    student, batch = small(), batch_of()
    _, (fool, _) = adversarial_terms(judge())
    fool(student, batch, None).backward()
    assert all(p.grad is not None and p.grad.any() for p in student.parameters())


def test_the_weight_is_the_students_alone():
    light, heavy = (align(**game(judge(), weight=w)) for w in (0.001, 1.0))
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
    """What was logged after each step."""

    def __init__(self) -> None:
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.seen.append({name: loss.item() for name, loss in trainer.callback_metrics.items()})


def test_a_discriminator_of_a_student_at_rest_learns_to_tell():
    module, losses = align(optim=Optim(lr=0.0, warm_up=0), **game(judge(lr=1e-2))), Losses()
    fit(module, Feed([batch_of()] * 30), callbacks=[losses])
    both = [
        sum(step[f"loss/discriminator_{d}"] for d in ("source", "target")) for step in losses.seen
    ]
    assert both[0] == pytest.approx(math.log(2), abs=0.05)
    assert both[-1] < math.log(2) / 2


def test_the_discriminator_has_the_optimiser_of_the_papers():
    """Adam with a learning rate of 1e-4, betas 0.9 and 0.99, that falls with the student's."""
    module, losses = align(optim=Optim(lr=1e-3, warm_up=0, power=0.9), **game(judge())), Losses()
    before = {n: p.detach().clone() for n, p in module.terms.named_parameters()}
    gradients = Gradients()
    fit(module, batches(1), steps=10, callbacks=[losses, gradients])
    *students, group = module.optimizers().param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.99), 0.0)
    assert {g["betas"] for g in students} == {(0.9, 0.999)}
    assert group["lr"] == pytest.approx(1e-4 * 0.9**0.9)
    assert {id(p) for p in group["params"]} == {id(p) for p in module.terms.parameters()}
    for name, parameter in module.terms.named_parameters():
        gradient = gradients.found[f"terms.{name}"]
        step = 1e-4 * gradient / (gradient.abs() + 1e-8)  # Adam's first
        torch.testing.assert_close(parameter, before[name] - step)


# Whole steps

TERMS = {
    "minent": lambda: {"target_terms": [EntropyTerm(weight=0.1)]},
    "advent": lambda: game(judge(), weight=0.1),
    "adaptsegnet": lambda: game(judge(), shown=probability, weight=0.1),
    "mic": lambda: {"target_terms": [MaskedConsistency(block=8, teacher="own", confidence=0.3)]},
    "pipa": lambda: {
        "source_terms": [PixelTerm(width=16, dim=8), FeatureDistance(min_ratio=0.1)],
        "target_terms": [PatchTerm(threshold=0.3, width=16, dim=8, memory=30)],
    },
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", TERMS)
def test_five_steps(name, precision):
    module = align(jitter_source=True, **TERMS[name]())
    terms = [*module.source_terms, *module.target_terms]
    before = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    after = trained(module, 5, precision=precision)
    for key, tensor in after.items():
        assert tensor.isfinite().all(), key
    for key, tensor in before.items():
        assert not torch.equal(tensor, after[key]), key
    assert set(module.trainer.callback_metrics) == {
        "loss/source",
        *(f"loss/{term.name}" for term in terms),
    }
    alone = trained(align(jitter_source=True), 5, precision=precision)
    assert any(not torch.equal(tensor, after[key]) for key, tensor in alone.items())
    assert module.moment.pseudo is None


@pytest.mark.parametrize("jitter", [False, True])
def test_without_terms_it_is_training_on_the_source_alone(jitter):
    first = trained(align(jitter_source=jitter, seed=4))
    second = trained(SourceOnly(small(), LABELS, optim=OPTIM, jitter=jitter, seed=4))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("where", ["method", "terms"])
def test_before_the_start_the_source_trains_alone(where):
    late = {"start": 3} if where == "method" else {}
    terms = game(judge(), **({"start": 3} if where == "terms" else {}))
    module = align(target_terms=terms["target_terms"], **late)
    found, alone = trained(module), trained(align())
    for name, tensor in alone.items():
        assert torch.equal(tensor, found[name]), name
    assert set(module.trainer.callback_metrics) == {"loss/source"}


def test_a_crop_smaller_than_the_discriminators_reach():
    feed = Feed([batch_of(side=16), batch_of(1, side=24)])
    module = align(**game(judge()))
    fit(module, feed)
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_without_a_target_the_student_learns_from_the_source():
    module = align(target_terms=[EntropyTerm()])
    fit(module, Feed([Batch(batch_of().source)]))
    assert set(module.trainer.callback_metrics) == {"loss/source"}


def test_nothing_waits_for_the_device():
    student, batch = small(), batch_of()
    half, (fool, other) = adversarial_terms(judge())
    with FakeTensorMode(allow_non_fake_inputs=True):
        half(student.analyse(batch.source.image), batch.source).backward()
        for term in (EntropyTerm(), fool, other):
            term(student, batch, None).backward()


# Teachers


@pytest.mark.parametrize("term", [ViewsTerm, MaskedConsistency])
def test_a_term_that_needs_a_teacher_is_refused(term):
    with pytest.raises(PipaError, match=f"term {term.name}: learns from a teacher"):
        align(target_terms=[EntropyTerm(), term()])
    SelfTraining(small(), LABELS, target_terms=[term()])


def test_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="entropy, entropy"):
        align(target_terms=[EntropyTerm(), EntropyTerm()])


def masked(**options) -> MaskedConsistency:
    return MaskedConsistency(block=8, **options)


def test_its_own_teacher_is_the_methods_if_both_are_alike():
    """Same student, same averages, same labels: with and without sharing, the same bits."""
    alike, other = {"momentum": 0.6, "confidence": 0.4}, {"momentum": 0.1, "confidence": 0.4}
    found = [
        trained(SelfTraining(small(), LABELS, optim=OPTIM, target_terms=[term], **alike))
        for term in (masked(), masked(teacher="own", **alike), masked(teacher="own", **other))
    ]
    shared, own, different = found
    names = [name for name in shared if name.startswith("student.")]
    assert all(torch.equal(shared[name], own[name]) for name in names)
    assert any(not torch.equal(shared[name], different[name]) for name in names)


def test_its_own_teacher_is_the_average_of_the_students_so_far():
    students = []

    class Path(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            students.append([p.detach().clone() for p in module.student.parameters()])

    term = masked(teacher="own", momentum=0.6, start=1)
    module = align(target_terms=[term])
    fit(module, batches(4), callbacks=[Path()])
    expected = students[1]  # copied when the term starts
    for count, student in enumerate(students[2:], start=1):
        keep = min(1 - 1 / (count + 1), 0.6)
        expected = [keep * t + (1 - keep) * s for t, s in zip(expected, student, strict=True)]
    teacher = term.own.teacher.network
    for mine, parameter in zip(expected, teacher.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter)
    assert not any(p.requires_grad for p in teacher.parameters())

    again = masked(teacher="own")
    again.prepare(small())
    again.load_state_dict(term.state_dict())
    assert again.own.steps == term.own.steps == 3


def test_a_shared_teacher_leaves_nothing_in_the_checkpoint():
    term = masked()
    term.prepare(small())
    assert not term.state_dict()


def test_minent_lowers_the_entropy_of_the_target():
    def left(**terms) -> float:
        module = align(optim=Optim(lr=1e-2, warm_up=0), **terms)
        fit(module, Feed([batch_of()] * 15))
        with torch.no_grad():
            return entropy(module.student(batch_of().target.image)).mean().item()

    assert left(target_terms=[EntropyTerm(weight=1.0)]) < 0.5 * left()
