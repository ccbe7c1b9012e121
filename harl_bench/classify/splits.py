"""Held-out splits: which training images choose the strength, the learning rate or the number of
epochs.

Every way takes the labels [N] of all rows of a data set (in sorted-path order), the rows to split
and a generator, and returns (train, held out).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
HoldOut = Callable[[Rows, Rows, np.random.Generator], tuple[Rows, Rows]]


def stratified(
    labels: Rows, rows: Rows, generator: np.random.Generator, *, share: float
) -> tuple[Rows, Rows]:
    """A share of each class, rounded to whole images, so that each class has at least one row on
    both sides.

    Args:
        labels, rows, generator: see above; each class present has at least two rows.
        share: held-out share of each class.
    """
    _, sizes = np.unique(labels[rows], return_counts=True)
    return _divided(
        labels, rows, np.clip(np.rint(share * sizes).astype(np.int64), 1, sizes - 1), generator
    )


def proportional(
    labels: Rows, rows: Rows, generator: np.random.Generator, *, held: int, of: int
) -> tuple[Rows, Rows]:
    """`held` of `of` rows by largest remainder: exactly `held` when there are `of`, the same share
    of fewer.

    Classes of equal remainder are drawn: 5,067 of CIFAR-100's 50,000 are 51 images in 67 classes
    and 50 in 33.
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
    """`count` rows of each class, fewer where fewer than one would remain."""
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
