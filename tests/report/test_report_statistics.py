"""Means, intervals, tests and ranks against scipy and against hand-worked values."""

import math

import pytest
from scipy import stats

from harl_bench.report.statistics import Estimate, compare, far_seeds, holm, ranks

A = Estimate((56.1, 56.5, 56.3), (0, 1, 2))
B = Estimate((55.2, 55.9, 55.3), (0, 1, 2))


def test_mean_and_sd_by_hand() -> None:
    assert A.mean == pytest.approx(56.3)
    assert A.sd == pytest.approx(0.2)  # deviations -.2, .2, 0: sum of squares .08 over n - 1 = 2


def test_interval_is_scipys_and_by_hand() -> None:
    assert A.interval == pytest.approx(
        stats.t.interval(0.95, 2, loc=A.mean, scale=stats.sem(A.values))
    )
    # t quantile .975 at 2 degrees of freedom, from a printed table 4.303
    half = 4.302652729911275 * 0.2 / math.sqrt(3)
    assert A.interval == pytest.approx((56.3 - half, 56.3 + half))


@pytest.mark.parametrize("values", [(56.3,), (56.3, 57.0)])
def test_no_interval_below_three_seeds(values: tuple[float, ...]) -> None:
    assert Estimate(values, tuple(range(len(values)))).interval is None


def test_equal_values_are_no_certainty() -> None:
    """Seeds that change nothing, as with an exact solver, give no interval of width 0."""
    assert Estimate((75.0, 75.0, 75.0), (0, 1, 2)).interval is None
    # whose mean is 7.074468085106384 and a bit
    assert Estimate((100 * (133 / 1880),) * 3, (0, 1, 2)).interval is None


def test_one_value_has_no_sd() -> None:
    assert Estimate((56.3,)).sd is None


def test_shared_seeds_are_paired() -> None:
    found = compare(A, B)
    assert found is not None
    assert found.kind == "paired"
    assert found.p == pytest.approx(stats.ttest_rel(A.values, B.values).pvalue)
    assert found.difference == pytest.approx(A.mean - B.mean)


def test_pairing_goes_by_seed_and_not_by_place() -> None:
    shuffled = Estimate((55.9, 55.3, 55.2), (1, 2, 0))
    one, two = compare(A, shuffled), compare(A, B)
    assert one is not None
    assert two is not None
    assert one.p == pytest.approx(two.p)


@pytest.mark.parametrize(
    "other", [Estimate((55.2, 55.9, 55.3, 55.0), (0, 1, 2, 3)), Estimate(B.values, (3, 4, 5))]
)
def test_other_seeds_take_welch(other: Estimate) -> None:
    found = compare(A, other)
    assert found is not None
    assert found.kind == "Welch"
    assert found.p == pytest.approx(stats.ttest_ind(A.values, other.values, equal_var=False).pvalue)


@pytest.mark.parametrize(
    "other",
    [
        Estimate((55.0, 55.1), (0, 1)),
        Estimate((55.0,), (0,)),
        Estimate(tuple(v - 1 for v in A.values), A.seeds),
    ],
    ids=["two seeds", "one seed", "differences without spread"],
)
def test_no_test_without_spread_or_seeds(other: Estimate) -> None:
    assert compare(A, other) is None


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1 = .04 .06 .06 .04, then never below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_ranks_share_ties() -> None:
    values = [40.0, 42.0, 41.0, 42.0]
    assert ranks(values) == [4, 1.5, 3, 1.5]
    assert ranks(values) == list(stats.rankdata([-v for v in values]))


def test_a_far_seed_is_named_and_stays() -> None:
    estimate = Estimate((57.0, 41.2, 57.3), (0, 1, 2))
    assert far_seeds(estimate) == [1]
    assert estimate.mean == pytest.approx((57.0 + 41.2 + 57.3) / 3)
    assert far_seeds(A) == []
