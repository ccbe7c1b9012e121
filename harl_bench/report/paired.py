"""Tests on the stored answers of two checkpoints for the same test images, for each metric.

SimCLR (2002.05709, appendix B.8) compares transfer scores by 100,000 paired permutations of the
predictions. They say whether other test images might reverse the order, not whether another
training would: from three seeds on that vary, the test over seeds replaces them, and two are not
tested.

- top-1: McNemar's exact test, the permutation test in the limit (mcnemar.py).
- mean per class: the permutation test itself, with a normal interval of the difference. An image
  that only one of the two recognizes counts for either with probability 1/2; only how many of them
  each class has matters, so that the draws are binomial.
- mAP, of 11 points or an area: a paired bootstrap, as the scores of two classifiers have different
  scales and cannot be exchanged. Images are drawn anew, the same for both; p is twice the smaller
  fraction of draws in which the difference has the other sign, or is 0.
"""

import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.average_precision import Kind, mean_ap, over_classes, resampled
from harl_bench.report.collect import Entry
from harl_bench.report.mcnemar import answers, mcnemar
from harl_bench.report.statistics import Comparison

PERMUTATIONS, RESAMPLES = 100_000, 2_000
SEED = 0
Arrays = dict[str, NDArray[Any]]


def permutation(a: Entry, b: Entry) -> Comparison | None:
    """Return the permutation test of mean per class; None as for `mcnemar`."""
    pair = _pair(a, b, "place")
    if pair is None:
        return None
    labels, ours, theirs = pair["labels"], pair["a"] == 0, pair["b"] == 0
    if ours.ndim != 1 or labels.ndim != 1 or (ours == theirs).all():
        return None
    weights = 1 / np.bincount(labels)[labels] / len(np.unique(labels))  # of an image in the mean
    difference = float((weights * (ours.astype(int) - theirs)).sum())
    apart = ours != theirs
    present, separated = np.unique(labels[apart], return_counts=True)
    each = np.array([weights[labels == label][0] for label in present])
    wins = np.random.default_rng(SEED).binomial(separated, 0.5, (PERMUTATIONS, len(present)))
    drawn = np.abs((2 * wins - separated) @ each)
    extreme = int((drawn >= abs(difference) - 1e-12).sum())
    variances = [
        np.var(ours[labels == label].astype(int) - theirs[labels == label]) for label in present
    ]
    half = 1.96 * float(np.sqrt((np.array(variances) * each).sum() / len(np.unique(labels))))
    interval = 100 * (difference - half), 100 * (difference + half)
    p = (1 + extreme) / (1 + PERMUTATIONS)
    return Comparison("permutation", 100 * difference, interval, p)


def bootstrap(a: Entry, b: Entry, kind: Kind = "11-point") -> Comparison | None:
    """Return the bootstrap test of mean AP; None as for `mcnemar`."""
    pair = _pair(a, b, "scores")
    if pair is None or pair["labels"].ndim != 2 or (pair["a"] == pair["b"]).all():
        return None
    labels, N = pair["labels"], len(pair["labels"])
    difference = mean_ap(pair["a"], labels, kind) - mean_ap(pair["b"], labels, kind)
    rows = np.random.default_rng(SEED).integers(N, size=(RESAMPLES, N))
    times = np.stack([np.bincount(drawn, minlength=N) for drawn in rows])
    ours, theirs = (resampled(pair[of], labels, times, kind) for of in ("a", "b"))
    drawn = over_classes(ours - theirs)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return None
    other = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return Comparison("bootstrap", difference, (low, high), min(1.0, 2 * other / (1 + len(drawn))))


# From the metric of a column to its test. Others have none.
PAIRED: dict[str, Callable[[Entry, Entry], Comparison | None]] = {
    "top1": mcnemar,
    "mean_per_class": cache(permutation),
    "mAP11": cache(bootstrap),
    "mAP": cache(partial(bootstrap, kind="area")),  # of the SVMs
}


def _pair(a: Entry, b: Entry, name: str) -> Arrays | None:
    """Return labels, and an array of both for the same images in one order.

    None unless each has stored answers of the same images.
    """
    ours, theirs = (_stored(path, name) if (path := answers(entry)) else None for entry in (a, b))
    if ours is None or theirs is None:
        return None
    same = ours["paths"].shape == theirs["paths"].shape and ours[name].shape == theirs[name].shape
    if not same or (ours["paths"] != theirs["paths"]).any():
        return None
    if not np.array_equal(ours["labels"], theirs["labels"]):
        return None
    return {"labels": ours["labels"], "a": ours[name], "b": theirs[name]}


def _stored(path: Path, name: str) -> Arrays | None:
    """Return paths, labels and one more array, sorted by path; None without readable answers."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            order = np.argsort(stored["paths"], kind="stable")
            return {key: stored[key][order] for key in ("paths", "labels", name)}
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile):
        return None
