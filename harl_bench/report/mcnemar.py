"""Two checkpoints on the same test images: McNemar's exact test on what each run stored of its
answers.

SimCLR (2002.05709, appendix B.8) compares transfer scores by 100,000 paired permutations of the
predictions, which for top-1 is this test in the limit. It says whether another draw of test images
might turn the order round, not whether
another training would: from three seeds on, the test over seeds is taken, and of two neither.
"""

import zipfile
from pathlib import Path

from harl_bench.report.collect import Entry
from harl_bench.report.statistics import Comparison

PREDICTIONS = "predictions.npz"


def mcnemar(a: Entry, b: Entry) -> Comparison | None:
    """Of the images that one recognises and the other does not, are the halves equal?

    None unless each has one run with stored answers for the same images, and when no image tells
    them apart.
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
    return Comparison("McNemar", 100 * (won - lost) / len(ours), p)


def _hits(path: Path) -> dict[str, bool] | None:
    """Which of the test images were recognised, by path."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(zip(stored["paths"].tolist(), (stored["place"] == 0).tolist(), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
