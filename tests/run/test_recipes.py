"""Methods by name: the options, terms and needs of each."""

import pytest
from uda.steps import LABELS, small

from pipa.classes import CITYSCAPES
from pipa.errors import PipaError
from pipa.models.build import create_segmenter
from pipa.run.options import StudentOptions, build_student
from pipa.run.recipes import (
    RECIPES,
    MethodOptions,
    build_method,
    chosen_terms,
)
from pipa.run.train import needs_of
from pipa.uda.adversarial import Adversarial
from pipa.uda.optim import Optim
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import TERMS, default_terms


def built(*, labels=CITYSCAPES, pretrained=False, **options):
    options = MethodOptions(**options)
    terms = chosen_terms(options, default_terms())
    return build_method(options, small(), labels, terms, optim=Optim(), pretrained=pretrained)


def names_of(method):
    return [term.name for term in method.terms]


@pytest.mark.parametrize(
    ("name", "momentum"), [("dacs", 0.99), ("daformer", 0.999), ("mic", 0.999), ("pipa", 0.999)]
)
def test_a_teacher_follows_as_in_its_paper(name, momentum):
    method = built(name=name)
    assert isinstance(method, SelfTraining)
    assert method.teacher.momentum == momentum
    assert built(name=name, momentum=0.5).teacher.momentum == 0.5


OWN = {
    "source_only": (SourceOnly, []),
    "minent": (SourceOnly, ["entropy"]),
    "advent": (Adversarial, []),
    "adaptsegnet": (Adversarial, []),
    "dacs": (SelfTraining, []),
    "daformer": (SelfTraining, ["feature_distance"]),
    "mic": (SelfTraining, ["feature_distance", "masked"]),
    "pipa": (SelfTraining, ["pixel", "feature_distance", "patch"]),
}


def test_a_method_has_its_own_terms_and_no_others():
    assert {*OWN} == {*RECIPES}
    for name, (step, terms) in OWN.items():
        method = built(name=name, pretrained=True)
        assert type(method) is step
        assert names_of(method) == terms
    assert MethodOptions().name == "pipa"


def test_other_methods_have_further_terms_where_they_are_asked_for():
    assert names_of(built(name="source_only", terms=["pixel"])) == ["pixel"]
    assert names_of(built(name="minent", terms=["patch"])) == ["entropy", "patch"]
    assert names_of(built(name="advent", terms=["patch", "pixel"])) == ["pixel", "patch"]
    assert names_of(built(name="pipa", terms=["pixel", "masked"])) == ["pixel", "patch", "masked"]


def test_the_feature_distance_is_left_out_where_there_is_nothing_to_stay_near_to():
    assert "feature_distance" not in names_of(built(name="daformer"))
    with pytest.raises(PipaError, match="term feature_distance: it needs a pretrained encoder"):
        built(name="daformer", terms=["feature_distance"])
    assert "feature_distance" not in names_of(
        built(name="daformer", pretrained=True, labels=LABELS)
    )
    with pytest.raises(PipaError, match="which classes are things"):
        built(name="daformer", terms=["feature_distance"], pretrained=True, labels=LABELS)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MethodOptions("dcas"), "no method is called dcas. .*dacs.* or MODULE.CLASS"),
        (lambda: MethodOptions("nowhere.Mine"), "nowhere.Mine: cannot be imported"),
        (lambda: MethodOptions("pipa.UDAData"), "--method.name: pipa.UDAData is no Method"),
        (lambda: built(name="pipa.Method"), "--method.name pipa.Method: cannot be built"),
        (lambda: StudentOptions("fpn_mobilnet"), "no network is called 'fpn_mobilnet'"),
        (lambda: StudentOptions("pipa.UDAData"), "--student.name: pipa.UDAData is no Segmenter"),
        (lambda: create_segmenter("pipa.Segmenter", 3), "pipa.Segmenter cannot be built"),
        (
            lambda: create_segmenter("pipa.Wrapped", 3, pretrained="mine"),
            "pipa.Wrapped has no option pretrained. It has .*channels",
        ),
    ],
)
def test_what_is_no_method_and_no_network_is_refused(make, said):
    with pytest.raises(PipaError, match=said):
        make()


def test_a_method_of_ones_own_has_the_options_that_its_class_takes():
    options = MethodOptions(name="pipa.SelfTraining", momentum=0.5, mix="rectangle")
    method = build_method(options, small(), CITYSCAPES, [], optim=Optim())
    assert (method.teacher.momentum, method.pasted) == (0.5, "rectangle")
    assert needs_of(options, []).target
    assert not needs_of(MethodOptions(name="pipa.SourceOnly"), []).target


@pytest.mark.parametrize("name", TERMS)
def test_what_a_term_needs_the_data_are_asked_for(name):
    """A target term asks for a target also beside `source_only`."""
    options = MethodOptions(name="source_only", terms=[name])
    needs = needs_of(options, chosen_terms(options, default_terms()))
    assert needs.target == (name in ("entropy", "patch", "pair_cross_entropy", "masked"))
    assert needs.pair == (name in ("patch", "pair_cross_entropy"))
    assert needs.rare_classes


def test_what_a_method_needs_the_data_are_asked_for():
    for name in RECIPES:
        options = MethodOptions(name=name)
        needs = needs_of(options, chosen_terms(options, default_terms()))
        assert needs.target == (name != "source_only")
        assert needs.pair == (name == "pipa")
        assert needs.rare_classes == (name != "dacs")


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


def test_random_weights_that_nobody_asked_for_are_said(caplog):
    build_student(StudentOptions("fpn_mobilenet_v2"), 3)
    assert "--student.pretrained google/mobilenet_v2" in caplog.text
    caplog.clear()
    build_student(StudentOptions("fpn_mobilenet_v2", "none"), 3)
    build_student(StudentOptions("small"), 3)
    assert not caplog.text


def test_what_is_pasted_follows_the_classes_and_the_encoder():
    def pasted(**options):
        return built(name="daformer", **options).pasted

    assert pasted(mix="auto") == "class"
    assert pasted(mix="auto", pretrained=True) == "small"
    assert pasted(mix="auto", pretrained=True, labels=LABELS) == "rectangle"  # three classes
    assert pasted(pretrained=True) == "class"  # the papers
