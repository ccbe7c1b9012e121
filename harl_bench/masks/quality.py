"""How well masks agree with ground truth. Scores are percent, per picture, then averaged over pictures.

The paper reports "mIoU" without defining it (docs/fidelity.md 2): the foreground's IoU is primary here, the mean of
foreground's and background's is given beside it.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
BETA_2 = 0.3  # weight of precision in F, as saliency detection uses it (Achanta et al., CVPR 2009)


def scores(mask: Mask, truth: Mask) -> dict[str, float]:
    """All scores of one picture; `mask` and `truth` are [H, W].

    Two empty foregrounds agree fully: IoU, precision and recall are 100.
    """
    both, either = int((mask & truth).sum()), int((mask | truth).sum())
    foreground = _share(both, either)
    background = _share(int((~mask & ~truth).sum()), int((~mask | ~truth).sum()))
    precision, recall = _share(both, int(mask.sum())), _share(both, int(truth.sum()))
    weighted = BETA_2 * precision + recall
    return {
        "foreground_iou": foreground,
        "mean_iou": (foreground + background) / 2,
        "precision": precision,
        "recall": recall,
        "f_beta": (1 + BETA_2) * precision * recall / weighted if weighted else 0.0,
        "mae": 100 * float((mask ^ truth).mean()),
    }


def mean(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Each score averaged over pictures."""
    rows = list(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _share(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0
