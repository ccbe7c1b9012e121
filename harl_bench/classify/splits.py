"""Held-out validation splits of the training images, for everything that is selected.

Every function takes the labels [N] of all rows of a data set (in sorted-path order), the rows to
split and a generator, and returns (train, held out).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
HoldOut = Callable[[Rows, Rows, np.random.Generator], tuple[Rows, Rows]]


def stratified(
    labels: Rows, rows: Rows, generator: np.random.Generator, *, fraction: float
) -> tuple[Rows, Rows]:
    """Hold out a fraction of each class, rounded to images, at least one on both sides.

    Each class present must have at least two rows.
    """
    _, sizes = np.unique(labels[rows], return_counts=True)
    counts = np.clip(np.rint(fraction * sizes).astype(np.int64), 1, sizes - 1)
    return _divided(labels, rows, counts, generator)


def proportional(
    labels: Rows, rows: Rows, generator: np.random.Generator, *, held: int, of: int
) -> tuple[Rows, Rows]:
    """Hold out `held` of `of` rows by largest remainder, the same fraction of fewer rows.

    Between classes of equal remainder the generator decides: 5,067 of CIFAR-100's 50,000 are 51
    images in 67 classes and 50 in 33.
    """
    _, sizes = np.unique(labels[rows], return_counts=True)
    counts, remainders = np.divmod(sizes * held, of)
    total = max(1, round(len(rows) * held / of))
    order = np.lexsort((generator.permutation(len(sizes)), -remainders))
    counts[order[: total - counts.sum()]] += 1
    return _divided(labels, rows, np.minimum(counts, sizes - 1), generator)


def per_class(
    labels: Rows, rows: Rows, generator: np.random.Generator, *, count: int
) -> tuple[Rows, Rows]:
    """Hold out `count` rows of each class, fewer where none would remain."""
    _, sizes = np.unique(labels[rows], return_counts=True)
    return _divided(labels, rows, np.minimum(count, sizes - 1), generator)


def _divided(
    labels: Rows, rows: Rows, counts: Rows, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """Hold out counts[i] rows of the i-th class present."""
    held = np.zeros(len(rows), dtype=bool)
    for label, count in zip(np.unique(labels[rows]), counts, strict=True):
        held[generator.permutation(np.flatnonzero(labels[rows] == label))[:count]] = True
    return rows[~held], rows[held]
