"""Two checkpoints on the same test pictures: McNemar's exact test on what each run stored of its answers.

SimCLR (2002.05709, appendix B.8) compares transfer scores by 100,000 paired permutations of the predictions, which for
top-1 is this test in the limit. It says whether another draw of test pictures might turn the order round, not whether
another training would: from three seeds on, the test over seeds is taken.
"""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harl_bench.report.collect import Entry
from harl_bench.report.statistics import Comparison

PREDICTIONS = "predictions.npz"


def mcnemar(a: Entry, b: Entry) -> Comparison | None:
    """Of the pictures that one recognises and the other does not, are the halves equal? First seed that both have.

    None without stored answers for the same pictures, and when no picture tells them apart.
    """
    theirs = {result.seed: path for path, result in b.runs}
    for path, result in a.runs:
        if result.seed in theirs:
            ours, other = _hits(path.parent / PREDICTIONS), _hits(theirs[result.seed].parent / PREDICTIONS)
            if ours is None or other is None or not np.array_equal(ours[0], other[0]):
                return None
            won, lost = int((ours[1] & ~other[1]).sum()), int((other[1] & ~ours[1]).sum())
            if not won + lost:
                return None
            from scipy.stats import binomtest

            p = float(binomtest(min(won, lost), won + lost, 0.5).pvalue)
            return Comparison("McNemar", 100 * (won - lost) / len(ours[1]), p)
    return None


def _hits(path: Path) -> tuple[NDArray[np.str_], NDArray[np.bool_]] | None:
    """Paths of the test pictures, and which were recognised."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["paths"], stored["place"] == 0
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
