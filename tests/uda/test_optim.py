"""Parameter groups and schedule against mmcv's, for the authors' configurations.

Reference numbers: golden/dacs_parts, cut by golden/trim_losses.py.
"""

import pytest
import torch
from recipe import golden
from torch import nn

import pipa
from pipa.uda.optim import Optim, parameter_groups, warmup_poly

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
