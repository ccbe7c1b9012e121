"""How many images of a data set may be unreadable: one rule for every command."""

from collections.abc import Iterable, Mapping
from typing import Any

from harl_bench.core.errors import DataError
from harl_bench.core.progress import log

MAX_UNREADABLE = 0.01  # of all images; more is a broken data set


def too_many(unreadable: int, total: int, *, allowed: bool) -> bool:
    """Return whether more than 1 % are unreadable, without --allow-unreadable: the run stops."""
    return unreadable > MAX_UNREADABLE * total and not allowed


def note(
    samples: Iterable[Mapping[str, Any]], unreadable: dict[str, str], total: int, *, allowed: bool
) -> None:
    """Add the unreadable images of a batch, {path: reason} in each sample, to those known.

    Raises:
        DataError: they are more than 1 % of the `total` training images, and that was not allowed.
    """
    for sample in samples:
        for path, reason in sample["unreadable"].items():
            if path not in unreadable:
                unreadable[path] = reason
                log.warning("skipped: %s", reason)
    if too_many(len(unreadable), total, allowed=allowed):
        path, reason = next(iter(unreadable.items()))
        be = "is" if len(unreadable) == 1 else "are"
        raise DataError(
            f"{len(unreadable)} of {total} training images {be} unreadable, more than 1 %",
            where=path,
            seen=reason.partition("seen: ")[2].partition("; next")[0],
            next="replace or remove them, or give --allow-unreadable",
        )
