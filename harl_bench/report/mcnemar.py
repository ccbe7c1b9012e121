"""McNemar's exact test on the stored predictions of two checkpoints for the same test images.

SimCLR (2002.05709, appendix B.8) compares transfer scores by 100,000 paired permutations of the
predictions, which for top-1 is this test in the limit. It says whether other test images might
reverse the order, not whether another training would: from three seeds on, the test over seeds
replaces it, and two seeds are not tested.
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

    None unless each has one run with stored predictions of the same images, and if no image
    separates them.
    """
    if (len(a.runs), len(b.runs)) != (1, 1):
        return None
    ours, theirs = (_hits(entry.runs[0][0].parent / PREDICTIONS) for entry in (a, b))
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


def _hits(path: Path) -> dict[str, bool] | None:
    """Return by path whether a test image was recognized; None without readable predictions."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(zip(stored["paths"].tolist(), (stored["place"] == 0).tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
