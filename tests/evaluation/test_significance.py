"""Intervals, tests and power of paired differences, against scipy.stats and plain computation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipa.evaluation.significance import (
    bootstrap_interval,
    detectable_difference,
    holm,
    pooled_std,
    student_interval,
    t_test,
)

DIFFERENCES = [
    [0.7, 1.9],
    [0.31, -0.2, 0.94],
    [2.0, 2.9, 1.1, 3.4, 2.2],
    [i - 9.0 for i in range(30)],
]


@pytest.mark.parametrize("values", DIFFERENCES)
def test_the_interval_and_the_p_value_are_those_of_scipys_paired_test(values):
    rng = np.random.default_rng(0)
    base = rng.normal(40, 5, len(values))
    expected = stats.ttest_rel(base + values, base)
    assert t_test(values) == pytest.approx(expected.pvalue, rel=1e-9)
    assert student_interval(values) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_students_interval_is_that_of_the_textbook():
    """Five differences, t = 2.776: mean 3, standard deviation 1.5811."""
    half = 2.776 * 1.58114 / 5**0.5
    assert student_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(
        (3 - half, 3 + half), abs=1e-3
    )


def test_one_seed_has_no_interval_and_no_test():
    assert student_interval([3.0]) is None
    assert bootstrap_interval([3.0]) is None
    assert t_test([3.0]) is None
    assert pooled_std([[3.0], []]) is None


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (1.0, 0.0)])
def test_seeds_that_agree_exactly_leave_no_doubt(value, p):
    assert t_test([value] * 3) == p
    assert student_interval([value] * 3) == (value, value)


def test_holm_adjusts_as_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values):
    """Holm 1979: go through the sorted p-values until one is above 0.05 / (those that are left)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = list(
        itertools.takewhile(lambda i: p_values[i] * (len(p_values) - order.index(i)) < 0.05, order)
    )
    assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == set(rejected)


def test_the_pooled_deviation_weighs_by_degrees_of_freedom():
    """Squares 2 + 2 over 1 + 2 degrees of freedom; a single value has none."""
    assert pooled_std([[1.0, 3.0], [10.0, 11.0, 12.0], [7.0]]) == pytest.approx((4 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("count", "level"), [(2, 0.05), (3, 0.05), (5, 0.05), (5, 0.01), (30, 0.05)]
)
def test_the_test_finds_a_detectable_difference_in_four_of_five_samples(count, level):
    """Simulated: 200 000 samples, so that 0.8 has a standard error of 0.001."""
    true = detectable_difference(2.0, count, level=level)
    samples = np.random.default_rng(1).normal(true, 2.0, (200_000, count))
    t = samples.mean(1) / samples.std(1, ddof=1) * count**0.5
    found = abs(t) > stats.t.isf(level / 2, count - 1)
    assert found.mean() == pytest.approx(0.8, abs=0.005)


def test_the_bootstrap_is_that_of_all_resamples():
    values = [1.0, 2.0, 6.0]
    means = sorted(sum(some) / 3 for some in itertools.product(values, repeat=3))
    assert len(means) == 27
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(np.quantile(means, 0.025))
    assert high == pytest.approx(np.quantile(means, 0.975))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9), st.floats(-9, 9))
def test_the_bootstrap_holds_the_mean_and_moves_with_the_values(values, shift):
    low, high = bootstrap_interval(values, draws=500)
    slack = 1e-9 if len(values) <= 6 else 5.0
    assert low - slack <= np.mean(values) <= high + slack
    moved = bootstrap_interval([value + shift for value in values], draws=500)
    np.testing.assert_allclose(moved, [low + shift, high + shift], atol=1e-9)
