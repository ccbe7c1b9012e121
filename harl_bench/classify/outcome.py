"""What every protocol hands back: answers on the test split, and how they were chosen without
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harl_bench.classify.splits import Rows
from harl_bench.core.errors import DataError

Logits = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True)
class Outcome:
    """Answers for the readable test images.

    Args:
        rows: [N] of the data set.
        logits: [N, C]; their softmax is the confidence.
        labels: [N].
        selection: what was selected on the validation split, and what spoke for it.
        named: further answers by the prefix of their scores ("k20"); then `logits` are one of them,
            for the images.
        unreadable: paths of images left out.
        about: more for the manifest.
    """

    rows: Rows
    logits: Logits
    labels: Rows
    selection: dict[str, Any]
    named: dict[str, Logits] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def demand_images(rows: Rows, what: str, where: object, unreadable: int) -> None:
    """Refuse a split without a readable image, from which only NaN could be computed.

    Raises:
        DataError: there is none.
    """
    if not len(rows):
        raise DataError(
            f"no readable {what} image",
            where=where,
            seen=f"{unreadable} unreadable",
            next="mend those",
        )


def near_edge(value: float, grid: list[float], steps: int) -> bool:
    """Whether a selected value lies within `steps` of an end of the grid that selected it (a grid
    of one has none).
    """
    values = sorted(set(grid))
    place = values.index(value)
    return len(values) > 1 and min(place, len(values) - 1 - place) < steps
