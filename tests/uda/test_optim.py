"""Parameter groups and schedule against mmcv's, for the authors' configurations.

Reference numbers: golden/dacs_parts, cut by golden/trim_losses.py.
"""

import copy

import pytest
import torch
from recipe import golden
from torch import nn

import pipa
from pipa.errors import PipaError
from pipa.uda.optim import Optim, adamw, parameter_groups, warmup_poly
from pipa.uda.source_only import SourceOnly
from uda.steps import LABELS, Feed, batch_of, fit, small

_, META = golden("dacs_parts")


@pytest.mark.parametrize(
    ("name", "theirs"), [("daformer_mit_b5", "DAFormer_mitb5"), ("hrda_mit_b5", "HRDA_mitb5")]
)
def test_groups_hold_as_many_numbers_as_the_authors(name, theirs):
    with torch.device("meta"):
        network = pipa.create_segmenter(name, num_classes=19)
    expected = META["groups"][theirs]
    groups = parameter_groups(network, Optim())
    assert len(groups) == len(expected) == 3
    for group in groups:
        tensors, numbers = expected[f"{group['lr']:.1e}/{group['weight_decay']}"]
        assert sum(p.numel() for p in group["params"]) == numbers
        if group["weight_decay"] == 0 or group["lr"] > 1e-4:
            assert len(group["params"]) == tensors  # elsewhere: keys and values are one tensor


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8))
        self.layer_norm = nn.LayerNorm(8)
        self.position_embeddings = nn.Parameter(torch.zeros(4, 8))
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.alias = self.body[0]


def test_groups_go_by_what_a_parameter_is():
    parts = Parts()
    names = {parameter: name for name, parameter in parts.named_parameters()}
    optim = Optim(lr=1.0, head=10.0, decay=0.5)
    found = {
        (group["lr"], group["weight_decay"]): [names[p] for p in group["params"]]
        for group in parameter_groups(parts, optim)
    }
    assert sorted(found.pop((1.0, 0.5))) == ["body.0.bias", "body.0.weight"]
    assert sorted(found.pop((10.0, 0.5))) == [
        f"head.{part}" for part in ("0.bias", "0.weight", "1.bias", "1.weight")
    ]
    assert sorted(found.pop((1.0, 0.0))) == [
        "body.1.bias",
        "body.1.weight",
        "body.2.bias",
        "body.2.weight",
        "layer_norm.bias",
        "layer_norm.weight",
        "position_embeddings",
    ]
    assert not found
    torch.optim.AdamW(parameter_groups(parts, optim))


BACKBONES = {  # layers, and the layers of some parameters, counted by hand
    "daformer_mit_b1": (
        8,
        {
            "stages.0.patch_embeddings.proj.weight": 0,
            "stages.0.blocks.0.": 1,
            "stages.0.blocks.1.": 2,
            "stages.1.patch_embeddings.proj.weight": 2,
            "stages.1.blocks.0.": 3,
            "stages.3.blocks.1.": 8,
            "stages.3.layer_norm.weight": 8,
        },
    ),
    "fpn_mobilenet_v2": (16, {"conv_stem.": 0, "layer.0.": 1, "layer.15.": 16}),
    "fpn_resnet_50": (16, {"embedder.": 0, "stages.0.layers.0.": 1, "stages.3.layers.2.": 16}),
    "small": (4, {"backbone.stem.": 0, "stages.0.": 1, "stages.3.": 4}),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_learning_rates_fall_with_the_depth_of_a_layer(name):
    """As BEiT has it, but for one factor: there the last block is a layer below the head."""
    layers, known = BACKBONES[name]
    network = pipa.create_segmenter(name, 3)
    assert len(network.backbone.blocks()) == layers
    names = {parameter: name for name, parameter in network.named_parameters()}
    optim = Optim(lr=1.0, head=10.0, layer_decay=0.5)
    found = {
        names[p]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, optim)
        for p in group["params"]
    }
    assert found.keys() == set(names.values())
    for part, layer in known.items():
        rates = [found[n][0] for n in found if n.startswith("backbone.") and part in n]
        assert rates
        assert set(rates) == {0.5 ** (layers - layer)}, part
    assert all(rate == 10 for n, (rate, _) in found.items() if "head" in n)
    plain = {
        names[p]: group["weight_decay"]
        for group in parameter_groups(network, Optim())
        for p in group["params"]
    }
    assert {n: decay for n, (_, decay) in found.items()} == plain


def test_the_layers_of_a_method_are_those_of_its_student():
    """A frozen copy, as of the teacher, has none; a head of a term keeps its own rate."""
    student = pipa.create_segmenter("small", 3)
    method = nn.ModuleDict({"student": student, "term": nn.ModuleDict({"head": nn.Linear(2, 2)})})
    method["teacher"] = pipa.create_segmenter("small", 3).requires_grad_(False)
    optim = Optim(lr=1.0, layer_decay=0.9)
    rates = {group["lr"] for group in parameter_groups(method, optim)}
    assert rates == {10.0} | {0.9**below for below in range(5)}
    count = sum(len(group["params"]) for group in parameter_groups(method, optim))
    assert count == len(list(student.parameters())) + 2


def test_a_module_may_have_settings_of_its_own():
    """Whatever it holds and whoever holds it, once; the other groups are as without it."""
    parts, own = Parts(), Parts()
    own.optimiser = {"lr": 3.0, "betas": (0.9, 0.99), "weight_decay": 0.0}
    optim = Optim(lr=1.0, head=10.0, decay=0.5)
    method = nn.ModuleDict({"own": own, "parts": parts, "again": nn.ModuleDict({"own": own})})
    *others, last = parameter_groups(method, optim)
    assert others == parameter_groups(parts, optim)
    assert last == {
        "params": [p for p in own.parameters() if p.requires_grad],
        "lr": 3.0,
        "betas": (0.9, 0.99),
        "weight_decay": 0.0,
    }
    groups = torch.optim.AdamW([*others, last], betas=(0.9, 0.999)).param_groups
    assert [group["betas"] for group in groups] == [(0.9, 0.999)] * 3 + [(0.9, 0.99)]


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1])
def test_a_layer_decay_that_is_none(decay):
    with pytest.raises(PipaError, match="above 0 and at most 1"):
        Optim(layer_decay=decay)


def test_learning_rates_as_mmcv_sets_them():
    for key, values in META["lr"]["values"].items():
        steps, step = map(int, key.split("/"))
        for base, expected in zip((6e-5, 6e-4), values, strict=True):
            found = base * warmup_poly(step, steps, 1500)
            assert found == pytest.approx(float(expected), rel=1e-9)


def test_the_schedule_without_warm_up_and_beyond_its_end():
    assert [warmup_poly(s, 10, 0) for s in (0, 5, 10, 11)] == [1.0, 0.5, 0.0, 0.0]
    assert warmup_poly(5, 10, 0, power=0.9) == pytest.approx(0.5**0.9)
    assert warmup_poly(11, 10, 0, power=0.9) == 0
    rates = [warmup_poly(s, 1000, 100) for s in range(1001)]
    assert rates.index(max(rates)) in (99, 100)
    assert rates[0] == pytest.approx(1e-6)


def test_the_fused_optimiser_steps_as_the_plain_one():
    """Three groups, decay and learning rate of each, ten steps in float64."""
    optim = Optim(lr=1e-3, decay=0.1)
    fused, plain = Parts().double(), Parts().double()
    plain.load_state_dict(fused.state_dict())
    groups = parameter_groups(plain, optim)
    steppers = [
        (fused, adamw(parameter_groups(fused, optim), optim)),
        (plain, torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=False)),
    ]
    for parts, stepper in steppers:
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            for p in parts.parameters():
                if p.requires_grad:
                    p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            stepper.step()
    assert steppers[0][1].defaults["fused"]
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_of_another_memory_layout_are_those_of_the_same_weights(layout):
    """A run that began on a GPU goes on on a CPU: the fused kernel reads the memory as it lies."""

    def stepped(network, moments=None):
        optimizer = adamw(parameter_groups(network, Optim()), Optim())
        if moments is not None:
            optimizer.load_state_dict(moments)
        generator = torch.Generator().manual_seed(0)
        for weight in network.parameters():
            weight.grad = torch.empty_like(weight).copy_(
                torch.randn(weight.shape, generator=generator)
            )
        optimizer.step()
        return optimizer.state_dict()

    one = torch.nn.Conv2d(3, 4, 3)
    moments = copy.deepcopy(stepped(one))
    other = copy.deepcopy(one).to(memory_format=layout)
    for state in moments["state"].values():
        for name, value in state.items():
            if value.ndim == 4:
                far = {torch.contiguous_format, torch.channels_last} - {layout}
                state[name] = value.contiguous(memory_format=far.pop())
    stepped(one, copy.deepcopy(moments))
    stepped(other, moments)
    torch.testing.assert_close(other.weight, one.weight)


def test_gradients_that_are_clipped_are_not_left_to_the_fused_optimiser():
    """Lightning refuses to clip for it in mixed precision."""
    student = small()
    method = SourceOnly(student, LABELS, optim=Optim(clip=1.0))
    before = copy.deepcopy(student.state_dict())
    fit(method, Feed([batch_of()]), precision="bf16-mixed")
    assert any(not torch.equal(before[name], p) for name, p in student.named_parameters())
