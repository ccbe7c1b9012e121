"""Scores from one confusion matrix of the whole test set, in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = 255
Matrix = NDArray[np.int64]  # [K, K]: rows are the truth, columns the prediction
Labels = NDArray[np.uint8]  # [H, W]


def count(truth: Labels, predicted: Labels, classes: int) -> Matrix:
    """Return the confusion matrix of one image; pixels of truth 255 or prediction 255 are out."""
    known = (truth != IGNORED) & (predicted != IGNORED)
    pairs = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def scores(
    matrix: Matrix, names: Sequence[str]
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Return (metrics, per class): mIoU, mAcc and aAcc, and the IoU and accuracy of each class.

    A class that neither truth nor prediction has is None and not in the mean (mmsegmentation's
    IoUMetric: NaN); one that is only predicted has IoU 0.
    """
    right, truth, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    iou = _percent(right, truth + predicted - right)
    accuracy = _percent(right, truth)
    per_class = {name: {"IoU": iou[k], "Acc": accuracy[k]} for k, name in enumerate(names)}
    (overall,) = _percent(np.array([right.sum()]), np.array([matrix.sum()]))
    return {"mIoU": _mean(iou), "mAcc": _mean(accuracy), "aAcc": overall}, per_class


def _percent(part: NDArray[Any], whole: NDArray[Any]) -> list[float | None]:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return [100 * p / w if w else None for p, w in pairs]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
