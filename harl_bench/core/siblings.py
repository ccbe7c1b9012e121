"""The other seeds of a checkpoint, beside a run."""

from collections.abc import Sequence
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.results import RESULT, read_result


def usual_fingerprint(folder: Path, fingerprints: Sequence[str]) -> str:
    """Return the data's fingerprint in the results of other seeds, else the first of its own.

    A report has one row for runs of one fingerprint, and an earlier version may have given another.

    Args:
        folder: of a run, which need not exist.
        fingerprints: under which the data are known, the current one first.
    """
    for path in sorted(folder.parent.glob(f"seed*/{RESULT}")):
        try:
            if (known := read_result(path).data_fingerprint) in fingerprints:
                return known
        except DataError:  # told when that seed is asked for
            continue
    return fingerprints[0]
