"""Scores where an image may show several classes: the mean over classes of AP.

AP is of 11 points, or for SVMs an area (core/average_precision.py).

Labels are 1 where a class is present, 0 where it is absent, -1 where it is difficult: such images
are neither learnt from nor scored, class by class.

Letters: N images, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify.outcome import Scored
from harl_bench.classify.scores import INTERVAL, RESAMPLES
from harl_bench.core.average_precision import Kind, average_precisions, over_classes, resampled

NAMES: dict[Kind, str] = {"11-point": "mAP11", "area": "mAP"}


def scored(
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    classes: list[str],
    generator: np.random.Generator,
    kind: Kind = "11-point",
) -> Scored:
    """Return mean AP with its 95 % bootstrap interval over the images, and AP of each class."""
    name = NAMES[kind]
    aps = average_precisions(logits, labels, kind)
    N = len(labels)
    drawn = generator.integers(N, size=(RESAMPLES, N))
    times = np.stack([np.bincount(rows, minlength=N) for rows in drawn])
    samples = over_classes(resampled(logits, labels, times, kind))
    low, high = np.percentile(samples[~np.isnan(samples)], INTERVAL)
    return Scored(
        {name: float(over_classes(aps[None])[0])},
        {name: (float(low), float(high))},
        {
            of: {"AP": None if np.isnan(ap) else float(ap)}
            for of, ap in zip(classes, aps, strict=True)
        },
        kind if kind == "area" else name,
    )


def flags(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return labels [N, C] of any data set: its own, or one class an image as flags."""
    several: NDArray[np.int64] = labels if labels.ndim == 2 else np.eye(classes, dtype=int)[labels]
    return several
