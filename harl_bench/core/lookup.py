"""Look a name up in a table, or say what was probably meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from harl_bench.core.errors import UsageError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`, or a UsageError: unknown method 'byool'; did you mean 'byol'? known: byol, harl."""
    try:
        return table[name]
    except KeyError:
        raise UsageError(unknown(name, table, kind)) from None


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """The sentence for a name that is not among the known ones."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(known)}"
