"""Whole training steps beside the authors': the same weights and images, losses and parameters.

Through Lightning's trainer and `SelfTraining.training_step`, in float64, as the reference is. What
is drawn at random (ClassMix's classes, HRDA's detail crops) is given; stochastic depth, dropout and
colours are off on both sides. Reference numbers: golden/trajectories.json, cut by
golden/trim_trajectories.py.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from recipe import GOLDEN, fill, image, labels
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch, Box, Labelled, Unlabelled
from pipa.classes import CITYSCAPES
from pipa.losses.pixel_contrast import contrast_anchors, first_anchors
from pipa.models.hrda import HRDA
from pipa.models.mmseg import load, rename
from pipa.models.mmseg_names import SEGMENTER
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.mixing import Mixed, paste_mask
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.terms import FeatureDistance, SourceTerm
from uda.steps import fit

RUNS = json.loads((GOLDEN / "trajectories.json").read_text())
KEYS = json.loads(gzip.decompress((GOLDEN / "checkpoint_keys.json.gz").read_bytes()))
THINGS = [6, 7, 11, 12, 13, 14, 15, 16, 17, 18]
OURS = {"decode.loss_seg": "source", "mix.decode.loss_seg": "mixed"}


def student_of(kind: str, prefix: str = "") -> Segmenter:
    """MiT-B0 with the recipe's weights, for images that are normalised already."""
    keys = KEYS[f"{kind}_mit_b0_segmentor"]
    weights = {key: torch.from_numpy(fill(prefix + key, tuple(shape))) for key, shape in keys}
    student = load({"state_dict": weights}, Path(kind))[0].train()
    student.mean.zero_()
    student.std.fill_(1)
    for module in student.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return student


@dataclass
class Given:
    """The batches of a run; Lightning takes any iterable that is no list."""

    run: dict

    def __iter__(self):
        n, block = self.run["settings"]["n"], self.run["settings"]["block"]
        for i in range(len(self.run["steps"])):
            name, shape = f"open/traj/{n}/{i}", (2, 3, n, n)
            source, target = (torch.from_numpy(image(f"{name}/{x}", shape)) for x in ("src", "tgt"))
            label = torch.from_numpy(labels(f"{name}/lab", 2, n // block, n // block, block))
            valid = torch.ones(label.shape, dtype=torch.bool)
            valid[:, : self.run["settings"].get("top", 0)] = False
            valid[:, n - self.run["settings"].get("bottom", 0) :] = False
            yield Batch(Labelled(source, label), Unlabelled(target, valid))

    def __len__(self):
        return len(self.run["steps"])


class Replay(SelfTraining):
    """Self-training with the authors' draws in place of its own."""

    def __init__(self, run: dict, **options) -> None:
        super().__init__(**options, labels=CITYSCAPES)
        self.steps, self.size = run["steps"], run["settings"]["n"]

    def training_step(self, batch, batch_idx):
        self.place_detail(0)
        super().training_step(batch, batch_idx)

    def mix(self, source, target, pseudo, generator):
        self.place_detail(1)
        chosen = torch.zeros(2, 256, dtype=torch.bool)
        for row, classes in zip(chosen, self.steps[self.global_step]["mix_classes"], strict=True):
            row[classes] = True
        paste = paste_mask(source.label, chosen)
        return Mixed(
            torch.where(paste[:, None], source.image, target.image),
            torch.where(paste, source.label, pseudo.label),
            torch.where(paste, 1.0, pseudo.weight),
            paste | pseudo.sure,
        )

    def place_detail(self, which: int) -> None:
        """Give HRDA a generator whose next detail crop is the authors'."""
        if not isinstance(self.student, HRDA):
            return
        top, bottom, left, right = self.steps[self.global_step]["boxes"][which]
        wanted = Box(slice(top, bottom), slice(left, right))
        for seed in range(10_000):
            self.student.generator = torch.Generator().manual_seed(seed)
            if self.student._draw_box(self.size, self.size) == wanted:
                self.student.generator.manual_seed(seed)
                return
        raise AssertionError("no seed draws this box")


class ReleasedPixelTerm(SourceTerm):
    """The pixel loss as released, out of our parts: another projection, and void is a class.

    Hard pixels are where a classifier errs that is never trained; the first pixels of each half
    are taken, as in the reference, whose permutation is the identity.
    """

    name = "released_pixel"

    def __init__(self) -> None:
        super().__init__(0.1)

    def prepare(self, student: Segmenter) -> None:
        c = sum(student.backbone.channels)
        inner = nn.Sequential(nn.BatchNorm2d(c), nn.ReLU())
        layers = nn.Sequential(nn.Conv2d(c, c, 1), inner, nn.Conv2d(c, 256, 1))
        self.proj_head = nn.ModuleDict({"proj": layers})
        self.cls_head = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1),
            nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
            nn.Identity(),
            nn.Conv2d(c, 19, 1, bias=False),
        )
        self.load_state_dict(
            {
                key: torch.from_numpy(fill(key, tuple(t.shape)))
                for key, t in self.state_dict().items()
            }
        )

    def forward(self, prediction: Prediction, source: Labelled, generator=None) -> Tensor:
        maps = prediction.detail.features
        size = maps[0].shape[-2:]
        stack = torch.cat(
            [F.interpolate(m, size, mode="bilinear", align_corners=True) for m in maps], dim=1
        )
        rows = F.normalize(self.proj_head["proj"](stack), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        label = source.label[
            :, :: source.label.shape[1] // size[0], :: source.label.shape[2] // size[1]
        ]
        chosen = first_anchors(
            label.where(label != 255, 19),
            self.cls_head(stack.detach()).argmax(1),
            torch.arange(size.numel()).view(1, *size).expand(label.shape),
            num_classes=20,
            per_class=100,
            total=1024,
            min_pixels=101,
        )
        loss = contrast_anchors(rows[chosen.index], chosen.label, chosen.valid, temperature=0.1)
        return loss * (0.1 / 0.07)


class Record(Callback):
    """The inputs and results of each step, with the reference's names."""

    def __init__(self) -> None:
        self.steps: list[dict] = []

    def on_fit_start(self, trainer, module):
        self.initial = {name: p.detach().clone() for name, p in module.student.named_parameters()}

    def on_before_optimizer_step(self, trainer, module, optimizer):
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        self.steps.append({"lr": rates, "grad": self.copies(module.student, gradient=True)})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = self.steps[-1]
        losses = {n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("loss/")}
        mixed = module.last_step.mixed
        counts = torch.bincount(mixed.label.where(mixed.label != 255, 19).flatten(), minlength=20)
        step |= {"losses": losses, "label_hist": counts.tolist()}
        step["weight_mean"] = mixed.weight.double().mean().item()
        for who, network in (("student", module.student), ("teacher", module.teacher.network)):
            step[who] = self.copies(network)
            mean = network.head.fuse.bottleneck[1].running_mean
            step[f"{who}_norm"] = mean.abs().mean().item()

    def copies(self, network, *, gradient=False):
        return {
            name: (p.grad if gradient else p).detach().clone()
            for name, p in network.named_parameters()
        }


def replay(name: str, steps: int, *terms: SourceTerm, precision="32-true") -> tuple[dict, Record]:
    """Run the first steps of a reference run."""
    run = RUNS[name] | {"steps": RUNS[name]["steps"][:steps]}
    kind = name.split("_")[-1].replace("margins", "daformer")
    student = student_of(kind)
    if isinstance(student, HRDA):
        student.detail = run["settings"]["crop"]
        student.window = 2 * student.detail
    distance = FeatureDistance(weight=0.005, classes=THINGS)
    module = Replay(
        run,
        student=student,
        optim=Optim(warm_up=run["settings"]["warm"]),
        source_terms=[distance, *terms],
        confidence=run["settings"]["thr"],
    )
    distance.encoder.load_state_dict(student_of(kind, "imnet:").state_dict())
    record = Record()
    length = run["settings"]["max_iters"]
    fit(module, Given(run), length, precision=precision, callbacks=[record])
    return run, record


def our_losses(theirs: dict) -> dict[str, float]:
    """Their losses by our names; HRDA's two outputs are one loss of ours."""
    found = {"loss/feature_distance": theirs["src.loss_imnet_feat_dist"]}
    for stem, ours in (("", "source"), ("mix.", "mixed")):
        both = [theirs.get(f"{stem}decode.{hr}loss_seg", 0.0) for hr in ("", "hr.")]
        found[f"loss/{ours}"] = sum(both)
    return found


def one_of_ours(name: str) -> str:
    (ours,) = rename({name: torch.empty(2, 1)}, SEGMENTER, {}, Path(name))[0]
    return ours


def assert_left(theirs: dict, ours: dict, initial: dict[str, Tensor], near: "Near") -> None:
    """Parameters, averages and gradients of one step, as far as the reference lists them."""
    listed = [n for n in theirs["student_sum"] if not n.startswith(("proj_head", "cls_head"))]
    for name in listed:
        key = one_of_ours(name)
        for who in ("student", "teacher"):
            value = ours[who][key]
            size = value.abs().mean().item()
            total = value.sum().item() / value.numel()
            expected = theirs[f"{who}_sum"][name] / value.numel()
            assert size == pytest.approx(theirs[f"{who}_mean_abs"][name], rel=near.value), name
            assert total == pytest.approx(expected, abs=near.value * size), name
            moved = (value - initial[key]).abs().mean().item()
            way = theirs[f"{who}_delta_mean_abs"][name]
            assert moved == pytest.approx(way, rel=near.way, abs=near.value * size), name
        found = ours["grad"][key].abs().mean().item()
        assert found == pytest.approx(theirs["grad_mean_abs"][name], rel=near.gradient), name
    for who in ("student", "teacher"):
        expected = theirs[f"{who}_bn_running_mean_abs"]
        assert ours[f"{who}_norm"] == pytest.approx(expected, rel=near.loss), who


@dataclass
class Near:
    """Tolerances, relative: about five times what float32 alone costs the authors' code."""

    loss: float
    value: float
    way: float
    """Of the distance from the first weights; `value` bounds it where it is rounded away."""
    gradient: float
    pixels: int
    """Number of pixels of 32768 (or 131072) that may have another pseudo-label."""


EXACT = Near(1e-9, 1e-9, 1e-4, 1e-6, 0)
EARLY = Near(3e-6, 5e-7, 2e-3, 1e-3, 1)  # one pixel whose two best classes tie
LATE = Near(2e-4, 3e-6, 5e-3, 1e-2, 16)


def assert_mixed(theirs: dict, ours: dict, near: Near) -> None:
    counts = zip(ours["label_hist"], theirs["mixed_label_hist"], strict=True)
    assert sum(abs(mine - their) for mine, their in counts) <= 2 * near.pixels
    assert ours["weight_mean"] == pytest.approx(theirs["mixed_weight_mean"], rel=near.loss)


@pytest.mark.parametrize("kind", ["daformer", "hrda"])
def test_five_steps_are_the_authors(kind):
    run, record = replay(kind, 5)
    for i, (theirs, ours) in enumerate(zip(run["steps"], record.steps, strict=True)):
        near = EARLY if i < 2 else LATE
        assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-9)
        assert_mixed(theirs, ours, near)
        for name, loss in our_losses(theirs["losses"]).items():
            assert ours["losses"][name] == pytest.approx(loss, rel=near.loss), name
        assert_left(theirs, ours, record.initial, near)


@pytest.mark.slow
def test_two_steps_in_float64_are_the_authors_to_nine_digits():
    run, record = replay("daformer", 2, precision="64-true")
    for theirs, ours in zip(run["steps"], record.steps, strict=True):
        assert_mixed(theirs, ours, EXACT)
        for name, loss in our_losses(theirs["losses"]).items():
            assert ours["losses"][name] == pytest.approx(loss, rel=EXACT.loss), name
        assert_left(theirs, ours, record.initial, EXACT)


def test_margins_without_pseudo_labels_are_the_authors():
    """Rows at the top and bottom of the target, of weight 0; the reference is in float32."""
    run, record = replay("margins", 2)
    for theirs, ours in zip(run["steps"], record.steps, strict=True):
        assert_mixed(theirs, ours, EARLY)
        for name, loss in our_losses(theirs["losses"]).items():
            assert ours["losses"][name] == pytest.approx(loss, rel=EARLY.loss), name


@pytest.mark.parametrize(
    "kind", ["pipa_daformer", pytest.param("pipa_hrda", marks=pytest.mark.slow)]
)
def test_steps_of_the_released_pipa_are_a_term_of_ours(kind):
    """Before its patch loss starts: the pixel loss as released, in the place of `PixelTerm`."""
    run, record = replay(kind, 2, ReleasedPixelTerm())
    for theirs, ours in zip(run["steps"], record.steps, strict=True):
        assert_mixed(theirs, ours, EARLY)
        both = ours["losses"]["loss/source"] + ours["losses"].pop("loss/released_pixel")
        ours["losses"]["loss/source"] = both
        for name, loss in our_losses(theirs["losses"]).items():
            assert ours["losses"][name] == pytest.approx(loss, rel=EARLY.loss), name
        assert_left(theirs, ours, record.initial, EARLY)
