"""Methods by name: each a few terms over the same step, PiPa two switches on any of them.

| name | paper | on the target |
|---|---|---|
| source_only | | nothing |
| minent | Vu et al., ADVENT, CVPR 2019 | entropy |
| advent | the same | a discriminator of self-information |
| adaptsegnet | Tsai et al., CVPR 2018 | a discriminator of softmax |
| dacs | Tranheden et al., WACV 2021 | a teacher's labels on ClassMix |
| self_training | Hoyer et al., DAFormer, CVPR 2022 | the same; rare classes, feature distance |

HRDA (Hoyer et al., ECCV 2022) is `self_training` of a student called hrda_..., MIC (Hoyer et al.,
CVPR 2023) the switch `masked`, PiPa (Chen et al., ACM MM 2023) the switches `pixel` and `patch`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pipa.classes import LabelSpace
from pipa.losses.adversarial import probability
from pipa.losses.entropy import weighted_self_information
from pipa.models.discriminator import Discriminator
from pipa.models.segmenter import Segmenter
from pipa.uda.alignment import Alignment
from pipa.uda.alignment_terms import EntropyTerm, adversarial_terms
from pipa.uda.method import Method
from pipa.uda.optim import Optim
from pipa.uda.pipa_terms import PatchTerm, PixelTerm
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.terms import FeatureDistance, MaskedConsistency, SourceTerm, TargetTerm, ViewsTerm

Name = Literal["source_only", "minent", "advent", "adaptsegnet", "dacs", "self_training"]


@dataclass
class MethodOptions:
    """The `method:` section: which losses.

    Args:
        name: source_only; minent, advent, adaptsegnet: align the outputs, without a teacher; dacs;
            self_training: DAFormer's and HRDA's.
        pixel: PiPa's pixel-wise contrast; its parameters are the section `pixel`. Default: on in
            self_training, off in all others.
        patch: PiPa's patch-wise contrast; its parameters are the section `patch`. Default: on in
            self_training, off in all others.
        masked: MIC: masked consistency; its parameters are the section `masked`. Methods without
            a teacher need `masked.teacher: own`.
        feature_distance: Weight of DAFormer's distance to the pretrained encoder (0.005 there), in
            self_training; counts only where the student has one.
        align: Weight of the target's loss in minent, advent, adaptsegnet (0.001 in the papers).
        views: Weight of plain cross entropy on the two views of the patch term: the control that
            sees the same images and learns by pseudo-labels instead of contrast.
        momentum: Of the teacher's moving average. Default: 0.999 (DAFormer), in dacs 0.99 (its
            code).
        confidence: Above this a pseudo-label is sure.
        start: First step with a target; leave it at 0 with pretrained weights.
        jitter_source: Colour jitter and blur on the source, too.
        passes: Student passes per step of source_only without terms.
    """

    name: Name = "self_training"
    pixel: bool | None = None
    patch: bool | None = None
    masked: bool = False
    feature_distance: float = 0.005
    align: float = 0.001
    views: float = 0.0
    momentum: float | None = None
    confidence: float = 0.968
    start: int = 0
    jitter_source: bool = False
    passes: int = 1

    def __post_init__(self) -> None:
        """Decide what was left open."""
        pipa = self.name == "self_training"
        self.pixel = pipa if self.pixel is None else self.pixel
        self.patch = pipa if self.patch is None else self.patch
        if self.momentum is None:
            self.momentum = 0.99 if self.name == "dacs" else 0.999

    @property
    def sees_pairs(self) -> bool:
        """Whether a step needs two overlapping crops."""
        return bool(self.patch) or self.views > 0

    @property
    def sees_target(self) -> bool:
        """Whether a step needs target images."""
        return self.name != "source_only" or self.sees_pairs or self.masked

    @property
    def likes_rare_classes(self) -> bool:
        """Whether source images are drawn by their rare classes; DACS draws all alike."""
        return self.name != "dacs"


@dataclass
class Losses:
    """The terms that switches of `MethodOptions` turn on, built from the sections of their names.

    Args:
        pixel: L_Pixel.
        patch: L_Patch.
        masked: MIC's.
    """

    pixel: PixelTerm = field(default_factory=PixelTerm)
    patch: PatchTerm = field(default_factory=PatchTerm)
    masked: MaskedConsistency = field(default_factory=MaskedConsistency)


def build_method(
    options: MethodOptions,
    student: Segmenter,
    labels: LabelSpace,
    losses: Losses,
    *,
    optim: Optim,
    pretrained: bool = False,
    seed: int = 0,
) -> Method:
    """Compose the method that the sections of an experiment file describe.

    Args:
        options: Which.
        student: The network to adapt.
        labels: Its classes.
        losses: The terms that may be switched on.
        optim: Learning rate, schedule, clipping.
        pretrained: Whether the encoder is worth staying near to.
        seed: Decides every draw of a step.

    Raises:
        PipaError: A term needs a teacher that the method does not have.
    """
    source_terms: list[SourceTerm] = [losses.pixel] if options.pixel else []
    target_terms: list[TargetTerm] = [losses.patch] if options.patch else []
    if options.views:
        target_terms.append(ViewsTerm(weight=options.views))
    if options.masked:
        target_terms.append(losses.masked)

    if options.name == "source_only" and not source_terms and not target_terms:
        jitter = options.jitter_source
        return SourceOnly(
            student, labels, optim=optim, passes=options.passes, jitter=jitter, seed=seed
        )
    compose: Callable[..., Method] = Alignment
    if options.name in ("dacs", "self_training"):
        assert options.momentum is not None, "decided when the options are made"
        compose = partial(SelfTraining, momentum=options.momentum, confidence=options.confidence)
    if options.name == "self_training" and options.feature_distance and pretrained:
        things = labels.things or None
        source_terms.append(FeatureDistance(weight=options.feature_distance, classes=things))
    if options.name == "minent":
        target_terms.insert(0, EntropyTerm(weight=options.align))
    if options.name in ("advent", "adaptsegnet") and options.align:
        shown = probability if options.name == "adaptsegnet" else weighted_self_information
        judge = Discriminator(labels.num_classes)
        weight, start = options.align, options.start
        half, game = adversarial_terms(judge, shown=shown, weight=weight, start=start)
        source_terms.append(half)
        target_terms[:0] = game
    return compose(
        student,
        labels,
        optim=optim,
        source_terms=source_terms,
        target_terms=target_terms,
        start=options.start,
        jitter_source=options.jitter_source,
        seed=seed,
    )
