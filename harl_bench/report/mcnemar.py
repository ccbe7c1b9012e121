"""McNemar's exact test on the stored predictions of two checkpoints for the same test images.

SimCLR (2002.05709, appendix B.8) compares transfer scores by 100,000 paired permutations of the
predictions, which for top-1 is this test in the limit. It says whether other test images might
reverse the order, not whether another training would: from three seeds on that vary, the test over
seeds replaces it, and two are not tested.
"""

import math
import zipfile
from pathlib import Path

from harl_bench.report.collect import Entry
from harl_bench.report.statistics import Comparison

PREDICTIONS = "predictions.npz"


def mcnemar(a: Entry, b: Entry) -> Comparison | None:
    """Return the test of the images that only one of the two recognizes.

    The interval of the difference is Wald's for paired fractions.

    None unless each has stored predictions of the same images (`answers`), and if no image
    separates them.
    """
    ours, theirs = (_hits(path) if (path := answers(entry)) else None for entry in (a, b))
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return None
    won = sum(hit and not theirs[path] for path, hit in ours.items())
    lost = sum(hit and not ours[path] for path, hit in theirs.items())
    if not won + lost:
        return None
    from scipy.stats import binomtest

    p = float(binomtest(min(won, lost), won + lost, 0.5).pvalue)
    n, difference = len(ours), won - lost
    half = 1.96 * math.sqrt(won + lost - difference**2 / n)
    low, high = (100 * (difference + sign * half) / n for sign in (-1, 1))
    return Comparison("McNemar", 100 * difference / n, (low, high), p)


def answers(entry: Entry) -> Path | None:
    """Return the predictions of an entry: of its one seed, or of the first of seeds with one score.

    Where the validation split is official nothing is random, and all seeds give the same answers.
    None for seeds that differ.
    """
    (path, first), *others = entry.runs
    if any(result.metrics != first.metrics for _, result in others):
        return None
    return path.parent / PREDICTIONS


def _hits(path: Path) -> dict[str, bool] | None:
    """Return by path whether a test image was recognized; None without readable predictions."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(zip(stored["paths"].tolist(), (stored["place"] == 0).tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
