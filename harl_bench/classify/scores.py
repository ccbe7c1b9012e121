"""Scores of a classifier, percent, with a bootstrap interval over the test images.

Letters: N images, C classes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify.splits import Rows as Integers
from harl_bench.core.average_precision import mean_ap

TOP5_CLASSES = 6  # with fewer classes every answer is among the top five
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
# What a data set may be scored by.
NAMES = {"top1": "top-1", "mean_per_class": "mean per class", "mAP11": "11-point mAP"}

Floats = NDArray[np.float32]


def ranks(logits: Floats, labels: Integers) -> Integers:
    """Return the rank [N] of the true class, 0 for the highest logit.

    Of equal logits the lower label comes first. A class without a vote (-inf, from `knn`) ranks
    last, so that a low label alone is no hit among the first five.
    """
    true = np.take_along_axis(logits, labels[:, None], 1)
    ahead = (logits > true) | ((logits == true) & (np.arange(logits.shape[1]) < labels[:, None]))
    ranks: Integers = np.where(
        np.isneginf(true[:, 0]), logits.shape[1], ahead.sum(1, dtype=np.int64)
    )
    return ranks


def top1(ranks: Integers, labels: Integers, classes: int) -> float:
    """Return the hits among all images, percent."""
    return 100 * float((ranks == 0).mean())


def top5(ranks: Integers, labels: Integers, classes: int) -> float | None:
    """Return the true classes among the first five, percent; None where there are no more than
    five.
    """
    return 100 * float((ranks < 5).mean()) if classes >= TOP5_CLASSES else None


def mean_per_class(ranks: Integers, labels: Integers, classes: int) -> float:
    """Return the mean over the classes that occur of the hits of each, percent."""
    total = np.bincount(labels, minlength=classes)
    right = np.bincount(labels, weights=ranks == 0, minlength=classes)
    present = total > 0
    return 100 * float((right[present] / total[present]).mean())


# From the true classes' ranks [N], their labels [N] and the number of classes to
# percent, or to None for a metric that means nothing here and is left out. To add one, add a line.
METRICS: dict[str, Callable[[Integers, Integers, int], float | None]] = {
    "top1": top1,
    "top5": top5,
    "mean_per_class": mean_per_class,
}


def score(ranks: Integers, labels: Integers, classes: int) -> dict[str, float]:
    """Return every metric that is defined here, percent."""
    values = {name: metric(ranks, labels, classes) for name, metric in METRICS.items()}
    return {name: value for name, value in values.items() if value is not None}


def judged(logits: NDArray[Any], labels: Integers, metric: str) -> float:
    """Return a data set's metric of logits [N, C], percent, NaN for none.

    It decides the selection on the validation split.

    Args:
        labels: [N], or [N, C] for "mAP11".
    """
    if metric == "mAP11":
        return mean_ap(logits, labels)
    return accuracy(logits.argmax(1), labels, metric)


def accuracy(predicted: Integers, labels: Integers, metric: str) -> float:
    """Return "top1" or "mean_per_class" of answers [N], percent, NaN for none."""
    if not len(labels):
        return math.nan
    hit = predicted == labels
    if metric == "top1":
        return 100 * float(hit.mean())
    return score(np.where(hit, 0, 1), labels, int(labels.max()) + 1)[metric]


def per_class(
    ranks: Integers, labels: Integers, classes: list[str]
) -> dict[str, dict[str, float | None]]:
    """Return the accuracy of each class, percent, None for a class without test images."""
    result: dict[str, dict[str, float | None]] = {}
    for label, name in enumerate(classes):
        of_class = ranks[labels == label]
        result[name] = {"top1": 100 * float((of_class == 0).mean()) if len(of_class) else None}
    return result


def intervals(
    ranks: Integers, labels: Integers, classes: int, generator: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile bootstrap interval of each score, over the test images."""
    samples = []
    for _ in range(RESAMPLES):
        rows = generator.integers(len(labels), size=len(labels))
        samples.append(score(ranks[rows], labels[rows], classes))
    low, high = (
        {name: float(np.percentile([s[name] for s in samples], q)) for name in samples[0]}
        for q in INTERVAL
    )
    return {name: (low[name], high[name]) for name in low}


def confusions(predicted: Integers, labels: Integers) -> list[tuple[int, int, int]]:
    """Return (true, predicted, count) of wrong answers, most frequent first, then by label."""
    wrong = predicted != labels
    pairs, counts = np.unique(
        np.stack([labels[wrong], predicted[wrong]], 1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]
