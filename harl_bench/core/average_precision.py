"""Average precision of VOC2007's classification task, by 11 points of recall, or as an area.

Precision at a recall is the best at that recall or above; AP is its mean at recall 0, 0.1, ..., 1,
or the area under its curve ("area"), as for SVMs. An image whose objects of the class are all
difficult is left out. Of equal scores the earlier image comes first. Source: VOCevalcls.m of the
VOC2007 development kit; get_precision_recall of mmselfsup's svm_helper.py, which is VISSL's.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

POINTS = 11
BLOCK = 200  # resamples at a time: 4 MB of 5,000 images
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Kind = Literal["11-point", "area"]


def average_precisions(scores: NDArray[Any], labels: Integers, kind: Kind = "11-point") -> Floats:
    """Return AP [C] of scores [N, C], percent, NaN for a class that is present nowhere.

    Args:
        labels: [N, C] of 1 (present), 0 (absent) and -1 (left out).
    """
    aps: Floats = resampled(scores, labels, np.ones((1, len(labels)), dtype=np.int64), kind)[0]
    return aps


def mean_ap(scores: NDArray[Any], labels: Integers, kind: Kind = "11-point") -> float:
    """Return the mean AP over the classes that are present somewhere, percent; NaN for none."""
    return float(over_classes(average_precisions(scores, labels, kind)[None])[0])


def over_classes(aps: Floats) -> Floats:
    """Return the means [R] of AP [R, C] over the classes that have one, NaN where none has."""
    counts = (~np.isnan(aps)).sum(1)
    means: Floats = np.where(counts, np.nansum(aps, axis=1) / np.maximum(counts, 1), np.nan)
    return means


def resampled(
    scores: NDArray[Any], labels: Integers, times: Integers, kind: Kind = "11-point"
) -> Floats:
    """Return AP [R, C] where each image occurs times [R, N] often, percent."""
    result = np.empty((len(times), labels.shape[1]))
    blocks = [
        np.ascontiguousarray(times[i : i + BLOCK].T.astype(np.int32))
        for i in range(0, len(times), BLOCK)
    ]
    for c in range(labels.shape[1]):
        counted = np.flatnonzero(labels[:, c] >= 0)
        order = counted[np.argsort(-scores[counted, c], kind="stable")]
        at = np.flatnonzero(labels[order, c] == 1)
        result[:, c] = np.concatenate([_averaged(block[order], at, kind) for block in blocks])
    return 100 * result


def _averaged(times: NDArray[np.int32], at: Integers, kind: Kind) -> Floats:
    """Return AP [R] of ranked images that occur times [N, R] often, present at the ranks `at`.

    Precision is looked up where recall rises, because between two such ranks it only falls.
    """
    if not len(at):
        return np.full(times.shape[1], np.nan)
    seen, hits = times.cumsum(0, dtype=np.int32)[at], times[at].cumsum(0, dtype=np.int32)
    precision = hits / np.maximum(seen, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if kind == "area":  # recall rises by 1 / total each time one of the hits occurs
        total, rises = hits[-1], best * times[at]
        return np.where(total > 0, rises.sum(0) / np.maximum(total, 1), np.nan)
    points = []
    for k in range(POINTS):
        # recall >= k / 10 in whole numbers, as 0.1 has no exact binary fraction
        first = ((POINTS - 1) * hits >= k * hits[-1]).argmax(0)
        points.append(np.take_along_axis(best, first[None], 0)[0])
    return np.where(hits[-1] > 0, np.mean(points, axis=0), np.nan)
