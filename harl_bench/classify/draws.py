"""Few training images of each class, drawn several times, and the interval of a mean over draws."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harl_bench.classify.splits import Rows


def per_class(labels: Rows, rows: Rows, k: int, generator: np.random.Generator) -> Rows:
    """Return k of the rows of each class that is present, all of a class that has fewer."""
    drawn = []
    for label in np.unique(labels[rows]):
        of_class = rows[labels[rows] == label]
        drawn.append(generator.choice(of_class, min(k, len(of_class)), replace=False))
    return np.sort(np.concatenate(drawn))


def over_draws(values: ArrayLike) -> tuple[float, float] | None:
    """Return the 95 % Student t interval of the mean of independent draws.

    None of fewer than 3, or of equal ones: a class without more images gives the same in each draw.
    """
    from scipy.stats import t

    scores: Sequence[float] = np.asarray(values, dtype=np.float64).tolist()
    n = len(scores)
    if n < 3 or len(set(scores)) == 1:
        return None
    mean, sd = float(np.mean(scores)), float(np.std(scores, ddof=1))
    half = float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return mean - half, mean + half
