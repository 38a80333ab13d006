"""The teacher: its path, its labels and their weight, and that nothing trains it.

Reference numbers: golden/dacs_parts, cut by golden/trim_losses.py.
"""

import zlib

import numpy as np
import pytest
import torch
from recipe import golden, image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import pipa
from pipa.batch import Box, CropPair, Unlabelled
from pipa.errors import PipaError
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.uda.pseudo import pseudo_label
from pipa.uda.teacher import Teacher

ARRAYS, META = golden("dacs_parts")


class Tiny(Segmenter):
    """The network whose moving average the reference holds: conv, batch norm, conv, one scalar."""

    def __init__(self) -> None:
        super().__init__(2)
        self.scalar = nn.Parameter(torch.zeros(()))
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.layers.append(nn.Conv2d(4, 2, 1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: Tensor) -> Tensor:
        return self.dropout(self.layers(image)) * 5 + self.scalar

    def context(self, image: Tensor) -> View:
        return View([image], Box(slice(None), slice(None)))

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        return Prediction([Output(self(image), view.box, 1.0)], view, view)


def set_to(network: nn.Module, step: int) -> None:
    """Parameters of the reference's student at a step; 99 is what its teacher starts from."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            key = f"open/ema/{step}/{name.removeprefix('layers.')}"
            rng = np.random.default_rng(zlib.crc32(key.encode()))
            values = rng.standard_normal(parameter.shape)
            parameter.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


def target_of(b: int = 2, size: int = 8, seed: int = 0) -> Unlabelled:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(b, size, size, dtype=torch.bool)
    valid[:, :2] = False
    return Unlabelled(torch.rand(b, 3, size, size, generator=generator), valid)


def test_it_follows_as_the_authors_have_it():
    student = Tiny()
    set_to(student, 99)
    teacher = Teacher(student)
    for record in META["ema"]["trajectory"]:
        set_to(student, record["iter"])
        with torch.no_grad():
            student.layers[1].running_mean += 1
        teacher.follow(student, record["iter"])
        for name, parameter in teacher.network.named_parameters():
            expected = torch.tensor(record["teacher"][name.removeprefix("layers.")])
            torch.testing.assert_close(parameter.flatten(), expected, rtol=1e-5, atol=1e-6)
        mean = teacher.network.layers[1].running_mean
        assert mean.tolist() == record["teacher_bn_running_mean"]


def test_its_momentum_is_the_authors():
    student = Tiny()
    for step, alpha in META["ema"]["alphas"].items():
        teacher = Teacher(student)
        with torch.no_grad():
            teacher.network.scalar.fill_(1.0)
        teacher.follow(student, int(step))  # the student's is 0
        assert teacher.network.scalar.item() == pytest.approx(alpha, abs=1e-6)


def test_it_starts_as_a_copy_that_shares_nothing():
    student = Tiny()
    teacher = Teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    for mine, theirs in zip(teacher.network.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine + 1, theirs)
    teacher.follow(student, 0)
    for mine, theirs in zip(teacher.network.parameters(), student.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_nothing_gives_it_a_gradient():
    student = Tiny()
    teacher = Teacher(student)
    pseudo = teacher.label(target_of())
    assert not pseudo.confidence.requires_grad
    loss = (student(target_of().image).mean() * pseudo.confidence).sum()
    loss.backward()
    teacher.follow(student, 5)
    assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize("case", [0, 1, 2])
def test_labels_and_weights_as_the_authors_have_them(case):
    info = META["pseudo_weight"][case]
    b, h, w = info["B"], info["H"], info["W"]
    logits = image(f"open/pseudo/{case}", (b, 19, h, w)) * np.float32(info["scale"])
    valid = np.ones((b, h, w), dtype=bool)
    if info["valid_mask"]:
        rng = np.random.default_rng(zlib.crc32(f"open/pseudo/{case}/valid".encode()))
        valid = (rng.random((b, 1, h, w)) > 0.3)[:, 0]
    valid[:, : info["top"]] = False
    valid[:, h - info["bottom"] :] = False
    pseudo = pseudo_label(torch.from_numpy(logits), torch.from_numpy(valid))
    assert torch.equal(pseudo.label, torch.from_numpy(ARRAYS[f"pseudo/{case}/label"]).long())
    assert pseudo.weight.max().item() == pytest.approx(info["ratio"], rel=1e-6)
    expected = torch.from_numpy(ARRAYS[f"pseudo/{case}/weight"])
    torch.testing.assert_close(pseudo.weight[:, 2::4, 2::4], expected, rtol=1e-6, atol=0)
    softmax = torch.from_numpy(logits).softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(pseudo.confidence, softmax, rtol=1e-5, atol=1e-6)


def test_quality_is_that_of_the_whole_batch():
    logits = torch.zeros(2, 3, 2, 4)
    logits[0, 1, :, :3] = 10  # six of eight pixels are sure
    valid = torch.ones(2, 2, 4, dtype=torch.bool)
    valid[:, 1] = False
    found = pseudo_label(logits, valid)
    assert found.weight[:, 0].unique().tolist() == [0.375]
    assert not found.weight[:, 1].any()


def test_it_labels_both_crops_of_a_pair():
    student, first, second = Tiny(), target_of(seed=1), target_of(seed=2)
    teacher = Teacher(student)
    pair = CropPair(first, second, torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2).bool())
    pseudo = teacher.label(target_of(), pair)
    assert pseudo.pair is not None
    for found, crop in zip(pseudo.pair, (first, second), strict=True):
        alone = teacher.label(crop)
        assert torch.equal(found.label, alone.label)
        assert torch.equal(found.weight, alone.weight)
        assert alone.pair is None


def test_it_is_never_random_and_takes_its_images_statistics():
    teacher = Teacher(Tiny())
    target = target_of()
    once, twice = teacher.label(target), teacher.label(target)
    assert torch.equal(once.confidence, twice.confidence)
    assert teacher.network.layers[1].running_mean.any()
    teacher.eval()
    assert not any(module.training for module in teacher.modules())
    assert not torch.equal(teacher.label(target).confidence, once.confidence)


@pytest.mark.parametrize("name", ["daformer_mit_b0", "fpn_mobilenet_v2"])
def test_in_training_only_norms_that_train_do(name):
    """Not stochastic depth, not dropout of any kind, not the frozen norms of an encoder."""
    student = pipa.create_segmenter(name, num_classes=4)
    if name == "fpn_mobilenet_v2":
        student.backbone.freeze_norms = True
    teacher = Teacher(student.train())
    for (path, mine), theirs in zip(
        teacher.network.named_modules(), student.modules(), strict=True
    ):
        # The network itself keeps the mode: HRDA shows all windows at once to its batch norms.
        mode = theirs.training and (path == "" or isinstance(mine, nn.BatchNorm2d))
        assert mine.training == mode
    target = target_of(1, 64)
    assert torch.equal(teacher.label(target).confidence, teacher.label(target).confidence)


class Casts(TorchDispatchMode):
    """How often each tensor was cast."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.count[args[0].data_ptr()] = self.count.get(args[0].data_ptr(), 0) + 1
        return function(*args, **(kwargs or {}))


def test_autocast_casts_each_weight_once_in_a_step():
    student = pipa.create_segmenter("hrda_small", 3, head={"width": 16}, detail=32)
    teacher = Teacher(student)
    target = Unlabelled(torch.rand(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool))
    # As Lightning does it.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), Casts() as casts:
        first, second = teacher.label(target), teacher.label(target)
    found = [casts.count.get(weight.data_ptr(), 0) for weight in teacher.network.parameters()]
    assert set(found) == {0, 1}
    assert torch.equal(first.confidence, second.confidence)
    assert not any(weight.requires_grad for weight in teacher.network.parameters())


@pytest.mark.parametrize("confidence", [-1.0, 2.0, float("nan")])
def test_a_confidence_that_no_pixel_can_have_is_refused(confidence):
    with pytest.raises(PipaError, match=r"^--method\.confidence: is .*must be from 0 to 1"):
        Teacher(pipa.create_segmenter("small", 3), confidence=confidence)
