"""Agreement of masks, and of the saliency maps they come from, with ground truth, in percent.

The paper reports "mIoU" without defining it (docs/fidelity.md 2): the foreground's IoU is primary
here, the mean of foreground's and background's is given beside it. Max-F and S-measure are defined
as the field's toolboxes do; the Python one (PySODMetrics, MIT) would bring a second package that
owns cv2/, so they are computed here and held equal to recorded values of it
(tests/masks/test_quality.py).
"""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Map = NDArray[np.float64]
BETA_2 = 0.3  # weight of precision in F, as saliency detection uses it (Achanta et al., CVPR 2009)
OBJECT_WEIGHT = 0.5  # of the object-aware half of the S-measure (Fan et al., ICCV 2017)
EPS = 2.0**-52  # MATLAB's eps, as in the authors' code


def scores(mask: Mask, truth: Mask, saliency: Map | None = None) -> dict[str, float]:
    """Return all scores of one image; `saliency` in 0..1 is by default the mask; all [H, W].

    MAE and S-measure are of the saliency, scaled by its extremes, the others of the mask. Two empty
    foregrounds agree fully: IoU, precision and recall are 100.
    """
    both, either = int((mask & truth).sum()), int((mask | truth).sum())
    foreground = _percent(both, either)
    background = _percent(int((~mask & ~truth).sum()), int((~mask | ~truth).sum()))
    precision, recall = _percent(both, int(mask.sum())), _percent(both, int(truth.sum()))
    graded = mask.astype(np.float64) if saliency is None else saliency
    return {
        "foreground_iou": foreground,
        "mean_iou": (foreground + background) / 2,
        "precision": precision,
        "recall": recall,
        "f_beta": float(_f(np.float64(precision), np.float64(recall))),
        "mae": 100 * float(np.abs(_unit(graded) - truth).mean()),
        "s_measure": s_measure(graded, truth),
    }


def f_curve(saliency: Map, truth: Mask) -> NDArray[np.float64]:
    """Return F [256] of the foregrounds `>= t / 255`, t = 255 .. 0, of the map scaled to 0..1.

    Max-F is the largest value of the curve averaged over images (Achanta et al. 2009, Borji et al.
    2015).
    """
    levels = (_unit(saliency) * 255).astype(np.uint8)
    inside = np.bincount(levels[truth], minlength=256)[::-1].cumsum()
    selected = np.bincount(levels.ravel(), minlength=256)[::-1].cumsum()
    precision = 100.0 * inside / np.maximum(selected, 1)
    recall = 100.0 * inside / max(int(truth.sum()), 1)
    if not truth.any():  # two empty foregrounds agree fully
        precision = recall = np.where(selected == 0, 100.0, 0.0)
    return _f(precision, recall)


def s_measure(saliency: Map, truth: Mask) -> float:
    """Return the structure measure (Fan et al., ICCV 2017, eq. 1 to 5) in percent.

    It compares the objects, and the four parts that meet at the foreground's centre. `saliency` in
    0..1 is scaled by its extremes, as in the authors' code.
    """
    values, fraction = _unit(saliency), float(truth.mean())
    if fraction == 0:
        return 100 * (1 - float(values.mean()))
    if fraction == 1:
        return 100 * float(values.mean())
    inside, outside = _alike_inside(values[truth]), _alike_inside(1 - values[~truth])
    objects = fraction * inside + (1 - fraction) * outside
    y, x = (int(middle) + 1 for middle in np.argwhere(truth).mean(axis=0).round())
    halves = itertools.product((slice(y), slice(y, None)), (slice(x), slice(x, None)))
    parts = [(values[half], truth[half]) for half in halves]
    regions = sum(part.size / truth.size * _ssim(graded, part) for graded, part in parts)
    return 100 * max(0.0, OBJECT_WEIGHT * objects + (1 - OBJECT_WEIGHT) * regions)


def mean(
    rows: Iterable[Mapping[str, float]], curves: Iterable[NDArray[np.float64]] = ()
) -> dict[str, float]:
    """Return each score averaged over images, and max-F of their curves if there are any."""
    rows, curves = list(rows), list(curves)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
    if curves:
        means["max_f"] = float(np.mean(curves, axis=0).max())
    return means


def _f(
    precision: NDArray[np.float64] | np.float64, recall: NDArray[np.float64] | np.float64
) -> NDArray[np.float64]:
    weighted = BETA_2 * precision + recall
    return np.asarray((1 + BETA_2) * precision * recall / np.where(weighted == 0, 1, weighted))


def _alike_inside(values: Map) -> float:
    """Return how high and even the values of one object are (eq. 4)."""
    middle = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * middle / (middle**2 + 1 + spread + EPS)


def _ssim(values: Map, truth: Mask) -> float:
    """Return the structural similarity of one part (eq. 2), 1 for an empty part (weight 0)."""
    if truth.size == 0:
        return 1.0
    x, y, n = float(values.mean()), float(truth.mean()), truth.size - 1 + EPS
    var_x, var_y = float(((values - x) ** 2).sum()) / n, float(((truth - y) ** 2).sum()) / n
    together = float(((values - x) * (truth - y)).sum()) / n
    above, below = 4 * x * y * together, (x**2 + y**2) * (var_x + var_y)
    return above / (below + EPS) if above else float(below == 0)


def _unit(saliency: Map) -> Map:
    low, high = float(saliency.min()), float(saliency.max())
    return (saliency - low) / (high - low) if high > low else saliency


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0
