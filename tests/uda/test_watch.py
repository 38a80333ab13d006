"""Callbacks: pictures in TensorBoard, throughput, names in the bar, and the guard."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from pipa.batch import Batch
from pipa.errors import PipaError
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import PatchTerm, PixelTerm, SourceTerm
from pipa.uda.watch import (
    FiniteGuard,
    LearningRate,
    Pictures,
    Progress,
    PseudoLabels,
    Throughput,
    side_by_side,
)
from uda.steps import LABELS, Feed, batch_of, fit, small


class Breaks(SourceTerm):
    """A loss that is not finite from its second step on."""

    name = "breaks"

    def __init__(self, value: float) -> None:
        super().__init__(1.0, start=1)
        self.value = value

    def forward(self, prediction, source, generator=None):
        return prediction.outputs[0].logits.sum() * self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("every", [1, 2])
def test_the_guard_names_the_term(value, every):
    module = SelfTraining(small(), LABELS, source_terms=[Breaks(value)], start=100)
    feed = Feed([batch_of(seed) for seed in range(5)])
    with pytest.raises(PipaError, match=r"loss/breaks is -?(nan|inf) at step 2"):
        fit(module, feed, callbacks=[FiniteGuard()], log_every_n_steps=every)


def test_the_guard_lets_finite_losses_pass():
    fit(SourceOnly(small(), LABELS), Feed([batch_of()] * 2), callbacks=[FiniteGuard()])


def events(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_pictures_of_a_step(tmp_path):
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    module = SelfTraining(small(), LABELS)
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(module, feed, logger=board, callbacks=[Pictures(LABELS.colours, every=2)])
    board.finalize("success")
    found = events(tmp_path / "board")
    tags = {"source", "target and pseudo-label", "mixed", "the pair"}
    assert set(found.Tags()["images"]) == tags
    for tag in tags:
        pictures = found.Images(tag)
        assert [picture.step for picture in pictures] == [2, 4]
        assert (pictures[0].height, pictures[0].width) == (64, 64)  # two images, side by side
    assert "loss/mixed" in found.Tags()["scalars"]


def test_pictures_without_a_target(tmp_path):
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    feed = Feed([Batch(batch_of().source)])
    pictures = Pictures(LABELS.colours, every=1)
    fit(SourceOnly(small(), LABELS), feed, logger=board, callbacks=[pictures])
    board.finalize("success")
    assert events(tmp_path / "board").Tags()["images"] == ["source"]


def test_a_picture_shows_image_and_colours():
    image = torch.rand(2, 3, 4, 6)
    shown = side_by_side(image, torch.ones(2, 3, 2, 3))
    assert shown.shape == (3, 8, 12)
    assert torch.equal(shown[:, :4, :6], image[0])
    assert torch.equal(shown[:, 4:, :6], image[1])
    assert torch.equal(shown[:, :, 6:], torch.ones(3, 8, 6))
    panels = Pictures(LABELS.colours)._row(torch.zeros(1, 3, 1, 2), torch.tensor([[[1, 255]]]))
    assert panels[:, 0, 2].tolist() == pytest.approx([0, 200 / 255, 0])
    assert panels[:, 0, 3].tolist() == [0, 0, 0]


def test_throughput_counts_source_and_target():
    class Count(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen.append((throughput.images, trainer.callback_metrics.get("images_per_second")))

    seen, throughput = [], Throughput()
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(SelfTraining(small(), LABELS), feed, callbacks=[throughput, Count()], log_every_n_steps=2)
    assert [images for images, _ in seen] == [4, 0, 4, 0]
    assert seen[1][1] > 0


def test_the_rate_of_each_step_and_the_sure_pseudo_labels_are_logged(tmp_path):
    """With power 1 and no warm-up the rate falls by a quarter of the first in each of 4 steps."""
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    module = SelfTraining(small(), LABELS, optim=Optim(lr=1.0e-9, warm_up=0), confidence=0.0)
    callbacks = [LearningRate(), PseudoLabels(LABELS.names)]
    feed = Feed([batch_of(seed) for seed in range(4)])
    fit(module, feed, logger=board, callbacks=callbacks, log_every_n_steps=2)
    board.finalize("success")
    found = events(tmp_path / "board")
    assert [rate.value for rate in found.Scalars("lr")] == pytest.approx([0.75e-9, 0.25e-9])
    assert [sure.value for sure in found.Scalars("pseudo/sure")] == [1.0, 1.0]
    shares = [found.Scalars(f"pseudo_share/{name}")[-1].value for name in LABELS.names]
    assert sum(shares) == pytest.approx(1)


def test_weight_and_sureness_are_means_over_the_steps_since_the_last_log(tmp_path):
    class Seen(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            pseudo = module.last_step.pseudo
            sure = (pseudo.confidence.double() >= module.teacher.confidence).double().mean()
            seen.append((pseudo.weight.double().mean().item(), sure.item()))

    seen: list[tuple[float, float]] = []
    board = TensorBoardLogger(tmp_path, name=None, version="board")
    options = {"confidence": 0.4, "pseudo_weight": "confidence"}
    module = SelfTraining(small(), LABELS, optim=Optim(lr=1.0e-2, warm_up=0), **options)
    feed = Feed([batch_of(seed) for seed in range(4)])
    callbacks = [PseudoLabels(LABELS.names), Seen()]
    fit(module, feed, logger=board, callbacks=callbacks, log_every_n_steps=2)
    board.finalize("success")
    found = events(tmp_path / "board")
    for at, name in enumerate(("pseudo/weight", "pseudo/sure")):
        one, two, three, four = (step[at] for step in seen)
        assert len({one, two, three, four}) > 1
        logged = [point.value for point in found.Scalars(name)]
        assert logged == pytest.approx([(one + two) / 2, (three + four) / 2], rel=1e-5)


def test_a_class_of_many_pixels_is_counted_to_the_end():
    """Float32 stops at 2^24, which a class reaches within fifty steps of large crops."""
    watch = PseudoLabels(LABELS.names)
    watch.count = torch.tensor([2**24, 0, 0])
    feed = Feed([batch_of()])
    fit(SelfTraining(small(), LABELS), feed, callbacks=[watch], log_every_n_steps=50)
    assert watch.count.sum() == 2**24 + batch_of().target.valid.sum()


class Says(Callback):
    """Replaces the pseudo-labels of each step by given shares of three classes, in percent."""

    def __init__(self, *shares) -> None:
        self.shares = list(shares)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        pseudo, target = module.last_step.pseudo, module.last_step.batch.target
        flat = torch.zeros(pseudo.label.numel(), dtype=torch.long)
        share = self.shares[trainer.global_step - 1]
        ends = [round(sum(share[:i]) / 100 * len(flat)) for i in range(4)]
        for name in range(3):
            flat[ends[name] : ends[name + 1]] = name
        pseudo.label = flat.view_as(pseudo.label)
        target.valid.fill_(value=True)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((60, 39, 1), (61, 39, 0), "vanished (1.0 -> 0.0 %)"),
        ((87, 7, 6), (75, 7, 18), ""),  # threefold, but of few pixels
        ((87, 7, 6), (70, 7, 23), "swallows others (6.0 -> 23.0 %)"),
        ((60, 39.8, 0.2), (60.2, 39.8, 0), ""),  # too rare to tell
        ((50, 30, 20), (40, 15, 45), ""),
    ],
)
def test_a_collapse_is_told_once(caplog, before, after, said):
    module = SelfTraining(small(), LABELS)
    watch = PseudoLabels(LABELS.names)
    callbacks = [Says(before, after, after), watch]
    feed = Feed([batch_of(seed) for seed in range(3)])
    fit(module, feed, callbacks=callbacks, log_every_n_steps=1)
    told = [line.getMessage() for line in caplog.records if "degrade" in line.getMessage()]
    assert len(told) == bool(said)
    assert all(f"{LABELS.names[2]} {said}" in line for line in told)
    resumed = PseudoLabels(LABELS.names)
    resumed.load_state_dict(watch.state_dict())
    assert resumed.warned == bool(said)
    assert resumed.first == pytest.approx([share / 100 for share in before], abs=2e-3)


def test_pixels_that_are_not_valid_are_not_counted(tmp_path, caplog):
    class Hides(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            pseudo, valid = module.last_step.pseudo, module.last_step.batch.target.valid
            valid[..., ::2] = False
            pseudo.label = valid.long()
            if trainer.global_step == 2:
                valid.fill_(value=False)

    board = TensorBoardLogger(tmp_path, name=None, version="board")
    module = SelfTraining(small(), LABELS)
    callbacks = [Hides(), PseudoLabels(LABELS.names)]
    feed = Feed([batch_of(), batch_of(1)])
    fit(module, feed, logger=board, callbacks=callbacks, log_every_n_steps=1)
    board.finalize("success")
    share = events(tmp_path / "board").Scalars(f"pseudo_share/{LABELS.names[1]}")
    assert share[0].value == 1.0
    assert "degrade" not in caplog.text, "no pixel is no collapse"


def test_the_bar_has_short_names(capsys):
    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            names.extend(trainer.progress_bar_callback.get_metrics(trainer, module))

    names = []
    bar = Progress(refresh_rate=1)
    fit(
        SelfTraining(small(), LABELS),
        Feed([batch_of()]),
        callbacks=[bar, Look()],
        enable_progress_bar=True,
    )
    assert {"source", "mixed"} <= set(names)
    assert not any("/" in name or name == "v_num" for name in names)


class Reads(TorchDispatchMode, Callback):
    """The steps in which Python asked a tensor for its value, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.found = 0, {}

    def on_train_batch_start(self, trainer, module, batch, index):
        self.now = index + 1

    def on_train_epoch_end(self, trainer, module):
        self.now = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if self.now and function is torch.ops.aten._local_scalar_dense.default:
            self.found[self.now] = self.found.get(self.now, 0) + 1
        return function(*args, **(kwargs or {}))


def test_a_step_that_does_not_log_reads_no_value():
    module = SelfTraining(small(), LABELS, source_terms=[PixelTerm()], target_terms=[PatchTerm()])
    feed = Feed([batch_of(seed) for seed in range(5)])
    with Reads() as reads:
        fit(
            module,
            feed,
            callbacks=[Progress(refresh_rate=3), Throughput(), FiniteGuard(), reads],
            enable_progress_bar=True,
            log_every_n_steps=4,
        )
    assert reads.found.keys() <= {4}, reads.found
