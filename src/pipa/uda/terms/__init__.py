"""The terms of a method, one file each: a loss with its modules and its needs."""

from collections.abc import Callable

from pipa.uda.terms.base import Given, SourceTerm, TargetTerm, Term
from pipa.uda.terms.entropy import EntropyTerm
from pipa.uda.terms.feature_distance import FeatureDistance
from pipa.uda.terms.masked import MaskedConsistency
from pipa.uda.terms.pair_cross_entropy import PairCrossEntropy
from pipa.uda.terms.patch import PatchTerm
from pipa.uda.terms.pixel import PixelTerm

__all__ = [
    "TERMS",
    "EntropyTerm",
    "FeatureDistance",
    "Given",
    "MaskedConsistency",
    "PairCrossEntropy",
    "PatchTerm",
    "PixelTerm",
    "SourceTerm",
    "TargetTerm",
    "Term",
    "default_terms",
]

TERMS: dict[str, Callable[[], Term]] = {
    term.name: term
    for term in (
        PixelTerm,
        FeatureDistance,
        EntropyTerm,
        PatchTerm,
        PairCrossEntropy,
        MaskedConsistency,
    )
}
"""Every term by its name, in the order in which a step computes them: a new one is a line here."""


def default_terms() -> dict[str, Term]:
    """Return every term of `TERMS` with its default options, by name."""
    return {name: term() for name, term in TERMS.items()}
