"""Training steps through Lightning's trainer, and the few things on which they depend."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

import pipa
from pipa.batch import Batch, Labelled
from pipa.errors import PipaError
from pipa.uda.optim import Optim, warmup_poly
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import MaskedConsistency, PairCrossEntropy, PatchTerm, PixelTerm
from pipa.uda.watch import FiniteGuard, Pictures, Throughput
from uda.steps import CLASSES, LABELS, Feed, batch_of, fit, small

STEPS = 3
OPTIM = Optim(lr=1e-3, head=2.0, warm_up=2)


def batches(*, target: bool = True) -> Feed:
    made = [batch_of(seed) for seed in range(STEPS)]
    return Feed(made if target else [Batch(batch.source) for batch in made])


def method(student=None, **options) -> SelfTraining:
    terms = {
        "source_terms": [PixelTerm(width=16, dim=8)],
        "target_terms": [PatchTerm(threshold=0.3, width=16, dim=8, memory=60), PairCrossEntropy()],
    }
    given = {"optim": OPTIM, "confidence": 0.4, "jitter_source": True} | terms | options
    torch.manual_seed(1)  # of the projection heads
    return SelfTraining(student or small(), LABELS, **given)


def trained(module, feed=None, **options) -> dict[str, Tensor]:
    """The state after a run: student, teacher, heads and bank."""
    fit(module, feed or batches(), **options)
    return module.state_dict()


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_the_same_seed_gives_the_same_bits():
    first = trained(method(seed=5))
    torch.rand(7)  # what was drawn elsewhere does not matter
    assert_equal(first, trained(method(seed=5)))
    other = trained(method(seed=6))
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize("name", ["daformer_mit_b0", "hrda_mit_b0"])
def test_chance_inside_the_network_follows_the_seed_too(name):
    """Dropout, stochastic depth and the place of HRDA's detail."""
    found = []
    for elsewhere in (0, 1):
        torch.manual_seed(2)
        options = {"detail": 32} if name.startswith("hrda") else {}
        student = pipa.create_segmenter(name, CLASSES, head={"width": 16}, **options)
        module = method(student, target_terms=[])
        torch.manual_seed(elsewhere)
        found.append(trained(module, Feed([batch_of(0, side=64), batch_of(1, side=64)])))
    assert_equal(*found)


def test_watching_changes_nothing(tmp_path):
    alone = trained(method(), log_every_n_steps=50)
    watched = trained(
        method(),
        log_every_n_steps=2,
        logger=TensorBoardLogger(tmp_path),
        callbacks=[Throughput(), FiniteGuard(), Pictures(LABELS.colours, every=1)],
    )
    assert_equal(alone, watched)


def test_validation_changes_nothing():
    held_out = batch_of(9, b=1).source
    module = method()
    validated = trained(module, validation=Feed([held_out]), val_check_interval=1)
    assert module.result is not None
    assert_equal(trained(method()), validated)


def test_before_the_start_the_source_trains_alone():
    module = method(start=STEPS, momentum=0.5)
    early = trained(module)
    student_alone = trained(method(), batches(target=False))
    for name, tensor in early.items():
        if name.startswith(("student.", "terms.0.")):
            assert torch.equal(tensor, student_alone[name]), name
    assert set(module.trainer.callback_metrics) == {"loss/source", "loss/pixel"}
    assert module.last_step.mixed is None


def test_a_term_may_start_later():
    module = method(target_terms=[MaskedConsistency(block=8, start=1)])
    steps = []

    class Names(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            steps.append("loss/masked" in trainer.callback_metrics)

    fit(module, batches(), callbacks=[Names()])
    assert steps == [False, True, True]


class Path(Callback):
    """The student before each step, and the rates and norm of the gradient that it steps with."""

    def __init__(self) -> None:
        self.students, self.rates, self.norms = [], [], []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.students.append([p.detach().clone() for p in module.student.parameters()])

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(sorted({group["lr"] for group in optimizer.param_groups}))
        norms = [p.grad.norm() for p in module.parameters() if p.grad is not None]
        self.norms.append(torch.stack(norms).norm().item())


@pytest.mark.parametrize("start", [0, 1])
def test_the_teacher_is_the_average_of_the_students_so_far(start):
    module, path = method(momentum=0.6, start=start), Path()
    fit(module, batches(), callbacks=[path])
    expected = path.students[start]  # a copy of the student before the first step that needs it
    for count, student in enumerate(path.students[start + 1 :], start=1):
        keep = min(1 - 1 / (count + 1), 0.6)
        expected = [keep * t + (1 - keep) * s for t, s in zip(expected, student, strict=True)]
    for mine, parameter in zip(expected, module.teacher.network.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter)


def test_the_schedule_reaches_the_optimiser():
    path = Path()
    fit(method(), batches(), steps=10, callbacks=[path])
    factors = [warmup_poly(step, 10, 2) for step in range(STEPS)]
    for found, factor in zip(path.rates, factors, strict=True):
        assert found == pytest.approx([1e-3 * factor, 2e-3 * factor])


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_the_gradient_is_clipped_where_that_is_asked(clip):
    """Adam's first average is a tenth of the gradient that it was given."""
    module, path = method(optim=Optim(lr=1e-3, clip=clip)), Path()
    fit(module, Feed([batch_of()]), callbacks=[path])
    states = module.optimizers().state.values()
    given = 10 * torch.stack([state["exp_avg"].norm() for state in states]).norm().item()
    assert path.norms[0] > 0.1
    assert given == pytest.approx(clip or path.norms[0], rel=1e-3)


def test_each_loss_is_logged_by_its_name_and_weighted():
    module = method()
    metrics = fit(module, batches()).callback_metrics
    assert set(metrics) == {
        f"loss/{n}" for n in ("source", "pixel", "mixed", "patch", "pair_cross_entropy")
    }
    heavier = method(source_terms=[PixelTerm(width=16, dim=8, weight=1.0)], target_terms=[])
    lighter = method(source_terms=[PixelTerm(width=16, dim=8, weight=0.1)], target_terms=[])
    one = [Feed([batch_of()]) for _ in range(2)]
    heavy, light = (
        fit(m, feed).callback_metrics["loss/pixel"].item()
        for m, feed in zip((heavier, lighter), one, strict=True)
    )
    assert heavy == pytest.approx(10 * light, rel=1e-5)


def test_bfloat16_trains():
    module = method()
    state = trained(module, precision="bf16-mixed")
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())
    assert all(p.dtype == torch.float32 for p in module.parameters())
    exact = method()
    fit(exact, batches())
    for name, loss in exact.trainer.callback_metrics.items():
        assert module.trainer.callback_metrics[name].item() == pytest.approx(loss.item(), rel=0.2)


def test_terms_of_one_name_are_refused():
    with pytest.raises(PipaError, match="pixel, pixel"):
        method(source_terms=[PixelTerm(), PixelTerm(temperature=0.5)])


def test_more_passes_over_the_source_are_averaged():
    """Without colours all passes are the same: so is what is learned."""
    runs = [
        SourceOnly(small(), LABELS, optim=OPTIM, passes=passes, jitter_source=False)
        for passes in (1, 4)
    ]
    once, four = (trained(run) for run in runs)
    for name, tensor in once.items():
        torch.testing.assert_close(tensor, four[name], rtol=1e-3, atol=1e-4)
    assert set(runs[1].trainer.callback_metrics) == {"loss/source"}
    coloured = SourceOnly(small(), LABELS, optim=OPTIM, passes=4, jitter_source=True)
    trained(coloured)
    assert not torch.equal(coloured.last_step.source.image, batches().batches[-1].source.image)


def test_a_batch_without_a_label_costs_nothing():
    batch = batch_of()
    nothing = Labelled(batch.source.image, torch.full_like(batch.source.label, 255))
    module = method(start=5)
    fit(module, Feed([Batch(nothing, batch.target, batch.pair)]))
    assert module.trainer.callback_metrics["loss/source"] == 0
    assert all(tensor.isfinite().all() for tensor in module.student.state_dict().values())


def test_mixed_images_are_jittered_and_their_labels_are_not():
    module, batch = method(target_terms=[]), batch_of(b=8)
    fit(module, Feed([batch]))
    mixed, pseudo = module.last_step.mixed, module.last_step.pseudo
    nearest = min_distance(mixed.image, batch.source.image, batch.target.image)
    assert (nearest > 0.02).sum() >= 5  # of 8: a share of 0.1 has neither jitter nor blur
    assert ((mixed.label == batch.source.label) | (mixed.label == pseudo.label)).all()


def min_distance(image: Tensor, *others: Tensor) -> Tensor:
    """How far the farthest pixel of each image is from the nearest of the same place."""
    each = [(image - other).abs().amax(dim=1) for other in others]
    return torch.stack(each).amin(dim=0).amax(dim=(1, 2))


class SecondProcess(SelfTraining):
    """The second of several processes that train together."""

    @property
    def global_rank(self) -> int:
        return 1


def test_each_process_has_draws_of_its_own():
    """The same batch in two processes: other classes are pasted, in other colours."""
    batch = batch_of(b=4)
    images = []
    for process in (SelfTraining, SecondProcess):
        module = process(small(), LABELS, optim=OPTIM)
        fit(module, Feed([batch]))
        images.append(module.last_step.mixed.image)
    assert (images[0] != images[1]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", ["fpn_small", "hrda_small"])
def test_one_pass_learns_what_two_passes_learn(name):
    """Without batch norms and dropout an image's features do not depend on those beside it."""

    def student():
        torch.manual_seed(0)
        options = {"detail": 32} if "hrda" in name else {}
        return pipa.create_segmenter(name, CLASSES, **options)

    ends = []
    for one_pass in (False, True):
        terms = [PixelTerm(width=16, dim=8, sampling="random")]
        method = SelfTraining(student(), LABELS, source_terms=terms, one_pass=one_pass)
        if "hrda" in name:  # two passes draw two detail crops: here the only one there is
            method.student.detail = 64
        fit(method, Feed([batch_of(seed, side=64) for seed in range(2)]))
        ends.append(method)
    two, one = ends
    for before, after in zip(two.student.parameters(), one.student.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-3, atol=2e-5)
    assert {name: value.item() for name, value in one.losses.items()} == pytest.approx(
        {name: value.item() for name, value in two.losses.items()}, rel=1e-3
    )


def test_one_pass_is_refused_with_batch_norms():
    student = pipa.create_segmenter("daformer_small", CLASSES)
    with pytest.raises(PipaError, match="batch norms"):
        SelfTraining(student, LABELS, one_pass=True)
