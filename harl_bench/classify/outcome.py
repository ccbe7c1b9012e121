"""The result of every protocol: answers on the test split, and their selection without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harl_bench.classify.splits import Rows
from harl_bench.core.errors import DataError

Logits = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True)
class Scored:
    """Scores of a protocol that has its own, percent.

    Args:
        metrics: by name.
        intervals: 95 %, over the test images or over draws of training images.
        per_class: scores of each class, by its name.
        metric: how AP was computed, "area"; "" without AP.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    metric: str = ""


@dataclass(frozen=True)
class Outcome:
    """Answers for the readable test images.

    Args:
        rows: [N] of the data set.
        logits: [N, C]; their softmax is the confidence. [N, 0] where answers are not kept.
        labels: [N], or [N, C] of a set whose images show several classes.
        selection: what was selected on the validation split, with its validation scores.
        named: logits by the prefix of their scores ("k20"), where a protocol has several answers;
            `logits` are then one of them.
        scored: the scores, where they are not those of the logits.
        unreadable: paths of the images that were left out.
        about: more entries for the manifest.
    """

    rows: Rows
    logits: Logits
    labels: Rows
    selection: dict[str, Any]
    named: dict[str, Logits] = field(default_factory=dict)
    scored: Scored | None = None
    unreadable: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)


def require_images(rows: Rows, what: str, where: object, unreadable: int) -> None:
    """Raise a DataError for a split without a readable image, as its scores would be NaN."""
    if not len(rows):
        raise DataError(
            f"no readable {what} image",
            where=where,
            seen=f"{unreadable} unreadable",
            next="replace those",
        )


def near_edge(value: float, grid: list[float], steps: int) -> bool:
    """Return whether a value lies within `steps` of an end of a grid of more than one value."""
    values = sorted(set(grid))
    index = values.index(value)
    return len(values) > 1 and min(index, len(values) - 1 - index) < steps
