"""Statistics of a score over n seeds: mean, spread, interval, tests, ranks.

Every seed counts, and none is ever dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean, median

INTERVAL_FROM = 3  # seeds: two leave the t interval 9 sd wide on either side, one leaves none
# A seed further than both from the median of the others is reported: points, and sd of the others.
FAR_POINTS, FAR_SD = 3.0, 10.0


@dataclass(frozen=True)
class Estimate:
    """The values of one metric over the seeds.

    A published number has no `seeds`; `quoted_sd` is the sd that stands beside it.
    """

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    quoted_sd: float | None = None

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """Arithmetic mean."""
        return fmean(self.values)

    @cached_property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1); from one value the quoted one or None."""
        return stdev(self.values) if self.n >= 2 else self.quoted_sd

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % Student t interval of the mean.

        None below `INTERVAL_FROM` values, and where all are equal: nothing was random then, which
        is no certainty.
        """
        if not self.sd or self.n < INTERVAL_FROM:
            return None
        half = _quantile(self.n - 1) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Comparison:
    """A test of two estimates: `difference` is a minus b with its 95 % interval, `p` two-sided."""

    kind: str
    difference: float
    interval: tuple[float, float]
    p: float


def compare(a: Estimate, b: Estimate) -> Comparison | None:
    """Return a paired t test when both sides have the same seeds, Welch's t test otherwise.

    None when a side has fewer than `INTERVAL_FROM` seeds, or nothing varies (a t statistic would
    divide by zero).
    """
    if min(a.n, b.n) < INTERVAL_FROM:
        return None
    if a.seeds and sorted(a.seeds) == sorted(b.seeds):
        other = dict(zip(b.seeds, b.values, strict=True))
        differences = [value - other[seed] for seed, value in zip(a.seeds, a.values, strict=True)]
        kind, mean, freedom = "paired", fmean(differences), float(len(differences) - 1)
        error = stdev(differences) / math.sqrt(len(differences))
    else:
        va, vb = stdev(a.values) ** 2 / a.n, stdev(b.values) ** 2 / b.n
        kind, mean, error = "Welch", a.mean - b.mean, math.sqrt(va + vb)
        freedom = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1)) if error > 0 else 1.0
    if error <= 1e-12 * max(1.0, abs(a.mean)):
        return None
    from scipy.special import stdtr

    half = _quantile(freedom) * error
    p = 2.0 * float(stdtr(freedom, -abs(mean / error)))
    return Comparison(kind, mean, (mean - half, mean + half), p)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values that hold for all tests together, by Holm's step-down correction."""
    corrected = [0.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, ps[i] * (len(ps) - rank)))
        corrected[i] = largest
    return corrected


def ranks(values: Sequence[float]) -> list[float]:
    """Return the ranks, 1 for the largest; equal values share the mean of their ranks."""
    return [1 + sum(v > x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


def far_seeds(estimate: Estimate) -> list[int]:
    """Return the seeds far from all others, which are kept in the mean and warned of."""
    far = []
    for i, value in enumerate(estimate.values):
        others = [v for j, v in enumerate(estimate.values) if j != i]
        if estimate.seeds and len(others) >= 2:
            distance = abs(value - median(others))
            if distance > max(FAR_POINTS, FAR_SD * stdev(others)):
                far.append(estimate.seeds[i])
    return far


def stdev(values: Sequence[float]) -> float:
    """Return the sample standard deviation, 20 times faster than `statistics.stdev`.

    It is 0 of equal values, whose mean may be off by a rounding error.
    """
    if min(values) == max(values):
        return 0.0
    mean = fmean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


@cache
def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
