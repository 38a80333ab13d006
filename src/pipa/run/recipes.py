"""Methods by the papers' names: each is a training step with its terms.

| name | paper | on the target |
|---|---|---|
| source_only | | nothing |
| minent | Vu et al., ADVENT, CVPR 2019 | entropy |
| advent | the same | a discriminator of self-information |
| adaptsegnet | Tsai et al., CVPR 2018 | a discriminator of softmax |
| dacs | Tranheden et al., WACV 2021 | a teacher's labels on ClassMix |
| daformer | Hoyer et al., DAFormer, CVPR 2022 | the same, and rare classes, feature distance |
| mic | Hoyer et al., MIC, CVPR 2023 | the same, and masked consistency |
| pipa | Chen et al., PiPa, ACM MM 2023 | that of daformer, and pixel and patch contrast |

HRDA (Hoyer et al., ECCV 2022) is a network: `daformer` with a student called hrda_... . Every
method takes further terms, of `uda.terms.TERMS` or of a module of your own, in `terms`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from inspect import signature
from typing import Literal

from pipa.classes import LabelSpace
from pipa.errors import PipaError, at_least
from pipa.files.imports import import_class
from pipa.losses.adversarial import probability
from pipa.losses.entropy import weighted_self_information
from pipa.models.segmenter import Segmenter
from pipa.uda.adversarial import Adversarial
from pipa.uda.method import Method
from pipa.uda.mixing import Mix
from pipa.uda.optim import Optim
from pipa.uda.pseudo import PseudoWeight
from pipa.uda.self_training import SelfTraining
from pipa.uda.source_only import SourceOnly
from pipa.uda.style import Restyle, Style
from pipa.uda.terms import TERMS, SourceTerm, TargetTerm, Term
from pipa.uda.terms.base import reason_against

log = logging.getLogger("pipa")

MANY_CLASSES = 5
"""Minimum number of classes for which `mix: auto` pastes half of them instead of a rectangle."""


@dataclass(frozen=True)
class Recipe:
    """The definition of a method.

    Args:
        step: Builds the method.
        options: Options of the `method` section that it takes, beside those of all methods.
        terms: Names of its own terms.
        needs_target: Whether the step itself uses target images.
        rare_classes: Whether source images are drawn by their rare classes.
        momentum: Momentum of the teacher's moving average, if it has a teacher.
    """

    step: Callable[..., Method]
    options: tuple[str, ...]
    terms: tuple[str, ...] = ()
    needs_target: bool = True
    rare_classes: bool = True
    momentum: float = 0.999


_ADVENT = partial(Adversarial, shown=weighted_self_information)
_ADAPTSEGNET = partial(Adversarial, shown=probability)
_TEACHER = (
    "momentum",
    "confidence",
    "pseudo_weight",
    "align_shares",
    "marginal",
    "mix",
    "one_pass",
)
RECIPES = {
    "source_only": Recipe(SourceOnly, ("passes",), needs_target=False),
    "minent": Recipe(SourceOnly, ("passes",), ("entropy",)),
    "advent": Recipe(_ADVENT, ("adversarial",)),
    "adaptsegnet": Recipe(_ADAPTSEGNET, ("adversarial",)),
    "dacs": Recipe(SelfTraining, _TEACHER, rare_classes=False, momentum=0.99),
    "daformer": Recipe(SelfTraining, _TEACHER, ("feature_distance",)),
    "mic": Recipe(SelfTraining, _TEACHER, ("feature_distance", "masked")),
    "pipa": Recipe(SelfTraining, _TEACHER, ("feature_distance", "pixel", "patch")),
}
"""Every method by its name: a new one is a line here."""


@dataclass
class MethodOptions:
    """The `method:` section: the method and further terms.

    Args:
        name: source_only, minent, advent, adaptsegnet, dacs, daformer, mic or pipa; or the dotted
            name of a class of your own, a subclass of `pipa.Method` (my_methods.Mine).
        terms: Further terms beside the method's own: pixel, patch, pair_cross_entropy, masked,
            feature_distance, entropy, each with a section of its name; or the dotted name of a
            class of your own, a SourceTerm or a TargetTerm (my_losses.EdgeTerm), or its
            class_path with init_args.
        adversarial: Weight of the student's adversarial loss in advent and adaptsegnet (0.001 in
            the papers).
        momentum: Of the teacher's moving average. Default: 0.999 (DAFormer); dacs: 0.99 (its code).
        confidence: Minimum probability of a sure pseudo-label.
        pseudo_weight: Weight of pseudo-labels: share, the share of sure pixels for all (the
            papers); confidence, 1 for sure pixels only; balanced, 1 for sure pixels and the surer
            half of each class.
        align_shares: Pull the shares of the teacher's classes towards the source's by this
            exponent, 0 to 1; 0: no.
        marginal: Pseudo-labels do not push down the classes that they name nowhere in an image.
        mix: The part of a source image that is pasted onto a target image: class, half of its
            classes (the papers; needs more than two classes); small, the same, but small classes
            come first more often; rectangle; none; auto: rectangle below five classes, else small
            with a pretrained encoder and class without.
        one_pass: Source and mixed images go through the student as one batch; not with batch norms.
        start: First step with a target; leave it at 0 with pretrained weights.
        jitter_source: Colour jitter and blur on the source, too.
        style: Give source images the style of target images: none; fda, their low frequencies;
            colour, the mean and covariance of their colours; auto: colour, turned only if the
            brightness of source and target differs greatly.
        style_strength: For fda, the share of frequencies (default: 0.01); for colour, the share of
            the new colours (default: 1).
        style_probability: Share of the source images that are restyled.
        style_turn: For colour, turn colours at random: for domains whose colours do not correspond.
        passes: Student passes over each source batch in source_only and minent.

    Raises:
        PipaError: A name is unknown, or a number is too small.
    """

    name: str = "pipa"
    terms: list[str | Term] = field(default_factory=list)
    adversarial: float = 0.001
    momentum: float | None = None
    confidence: float = 0.968
    pseudo_weight: PseudoWeight = "share"
    align_shares: float = 0.0
    marginal: bool = False
    mix: Mix | Literal["auto"] = "class"
    one_pass: bool = False
    start: int = 0
    jitter_source: bool = False
    style: Style | Literal["auto"] = "none"
    style_strength: float | None = None
    style_probability: float = 1.0
    style_turn: bool = True
    passes: int = 1

    def __post_init__(self) -> None:
        """Check the values, and fill in defaults that depend on the method."""
        recipe_named(self.name)
        at_least(0, self.start, "method.start")
        at_least(1, self.passes, "method.passes")
        if self.momentum is None:
            self.momentum = self.recipe.momentum

    @property
    def recipe(self) -> Recipe:
        """Return the definition of the method."""
        return recipe_named(self.name)

    @property
    def restyle(self) -> Restyle | None:
        """Return the change of source images to the style of the target, if there is one."""
        if self.style == "none":
            return None
        assert self.style != "auto", "train() has looked at the images"
        return Restyle(self.style, self.style_strength, self.style_probability, self.style_turn)


def recipe_named(name: str) -> Recipe:
    """Return the definition of one of `RECIPES`, or of a user's own method.

    Its options are those of `MethodOptions` that its class takes; it needs target images unless it
    is a kind of `SourceOnly`.

    Raises:
        PipaError: There is no such method.
    """
    if name in RECIPES:
        return RECIPES[name]
    if "." not in name:
        remedy = f"Names: {', '.join(RECIPES)}, or MODULE.CLASS of your own."
        raise PipaError(f"no method is called {name}", "--method.name", remedy)
    step = import_class(name, "--method.name", Method)
    taken = signature(step).parameters.keys() - signature(Method).parameters.keys()
    options = tuple(one.name for one in fields(MethodOptions) if one.name in taken)
    return Recipe(step, options, needs_target=not issubclass(step, SourceOnly))


def chosen_terms(options: MethodOptions, sections: Mapping[str, Term]) -> list[Term]:
    """Return the method's own terms and the further ones, in the order of `TERMS`, each once.

    Args:
        options: The method and further terms.
        sections: The terms of `TERMS`, built from the sections of their names.

    Raises:
        PipaError: A further term is unknown, or cannot be built.
    """
    foreign: list[Term] = []
    named = set(options.recipe.terms)
    for term in options.terms:
        if isinstance(term, Term):
            foreign.append(term)
        elif term in sections:
            named.add(term)
        else:
            foreign.append(import_term(term))
    return [term for name, term in sections.items() if name in named] + foreign


def import_term(name: str) -> Term:
    """Build a user's own term with its defaults, from the dotted name of its class.

    Raises:
        PipaError: There is no such class, or it is not a term.
    """
    where = "--method.terms"
    if "." not in name:
        raise PipaError(f"no term is called {name}", where, f"Terms: {', '.join(TERMS)}.")
    found = import_class(name, where, SourceTerm, TargetTerm)
    try:
        term: Term = found()
    except TypeError as error:
        remedy = f"Give its arguments: {{class_path: {name}, init_args: {{...}}}}."
        raise PipaError(f"{name} cannot be built ({error})", where, remedy) from error
    return term


def build_method(
    options: MethodOptions,
    student: Segmenter,
    labels: LabelSpace,
    terms: Sequence[Term],
    *,
    optim: Optim,
    pretrained: bool = False,
    seed: int = 0,
) -> Method:
    """Compose the method that the sections of an experiment file describe.

    Args:
        options: The method.
        student: The network to adapt.
        labels: Its classes.
        terms: The result of `chosen_terms`.
        optim: Learning rate, schedule, clipping.
        pretrained: Whether the student's encoder was pretrained.
        seed: Decides every draw of a step.

    Raises:
        PipaError: A term lacks its teacher or cannot be used, or a user's method cannot be built.
    """
    asked = {term if isinstance(term, str) else term.name for term in options.terms}
    usable: list[Term] = []
    for term in terms:
        reason = reason_against(term, student, labels, pretrained=pretrained)
        if reason is None:
            usable.append(term)
        elif term.name in asked:
            raise PipaError(reason, f"term {term.name}", "Take it out of --method.terms.")
        else:
            log.info("%s is left out: %s", term.name, reason)
    own = {name: getattr(options, name) for name in options.recipe.options}
    if own.get("mix") == "auto":
        many = "small" if pretrained else "class"
        own["mix"] = many if labels.num_classes >= MANY_CLASSES else "rectangle"
    try:
        return options.recipe.step(
            student,
            labels,
            optim=optim,
            source_terms=[term for term in usable if isinstance(term, SourceTerm)],
            target_terms=[term for term in usable if isinstance(term, TargetTerm)],
            start=options.start,
            jitter_source=options.jitter_source,
            style=options.restyle,
            seed=seed,
            **own,
        )
    except TypeError as error:
        if options.name in RECIPES:
            raise
        raise PipaError(f"cannot be built ({error})", f"--method.name {options.name}") from error
