"""Names become methods: what each name decides."""

import pytest
from uda.steps import LABELS, small

from pipa.run.recipes import Losses, MethodOptions, build_method
from pipa.run.train import StudentOptions
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining


def built(**options):
    return build_method(MethodOptions(**options), small(), LABELS, Losses(), optim=Optim())


@pytest.mark.parametrize(("name", "momentum"), [("dacs", 0.99), ("self_training", 0.999)])
def test_a_teacher_follows_as_in_its_paper(name, momentum):
    method = built(name=name)
    assert isinstance(method, SelfTraining)
    assert method.teacher.momentum == momentum
    assert built(name=name, momentum=0.5).teacher.momentum == 0.5


def test_other_methods_have_pipa_only_where_it_is_asked_for():
    assert not MethodOptions(name="source_only").sees_target
    assert [t.name for t in built(name="source_only", pixel=True).terms] == ["pixel"]
    assert [t.name for t in built(name="minent").terms] == ["entropy"]
    assert not len(built(name="dacs").terms)
    assert [t.name for t in built(name="minent", patch=True).terms] == ["entropy", "patch"]
    assert [t.name for t in built().terms] == ["pixel", "patch"]


@pytest.mark.parametrize(
    ("student", "weights"),
    [
        ("daformer_mit_b5", "nvidia/mit-b5"),
        ("hrda_mit_b0", "nvidia/mit-b0"),
        ("hrda_segformer_mit_b3", "nvidia/mit-b3"),
        ("deeplabv2_resnet_101", "microsoft/resnet-101"),
        ("hrda_deeplabv2_resnet_50", "microsoft/resnet-50"),
        ("fpn_mobilenet_v2", None),
        ("small", None),
    ],
)
def test_pretrained_weights_are_those_of_the_backbone(student, weights):
    assert StudentOptions(student).weights == weights
    assert StudentOptions(student, "none").weights is None
    assert StudentOptions(student, "mine").weights == "mine"
