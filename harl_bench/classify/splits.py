"""Held-out splits: which training pictures choose the regularisation strength."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def stratified(labels: Rows, rows: Rows, share: float, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Split rows into (train, held out), class by class, so that each class has at least one row on both sides.

    Args:
        labels: [N] class of every row of the data set, whose rows are in sorted-path order.
        rows: the rows to split; each class present has at least two.
        share: held-out share of each class, rounded to whole pictures.
    """
    held = np.zeros(len(rows), dtype=bool)
    for label in np.unique(labels[rows]):
        places = np.flatnonzero(labels[rows] == label)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        held[generator.permutation(places)[:count]] = True
    return rows[~held], rows[held]
