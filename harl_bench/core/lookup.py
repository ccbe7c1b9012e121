"""Look a name up in a table, or say what was probably meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from harl_bench.core.errors import UsageError

T = TypeVar("T")
LONG = 300  # characters of a list of names that one line of a terminal still holds


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`, or a UsageError: unknown method 'byool'; did you mean 'byol'? known: ..."""
    try:
        return table[name]
    except KeyError:
        raise UsageError(unknown(name, table, kind)) from None


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """The sentence for a name that is not among the known ones."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    names = ", ".join(known)
    if close:
        hint = f"unknown {kind} {name!r}; did you mean {close[0]!r}?"
        return f"{hint} known: {names}" if len(names) <= LONG else hint
    if len(names) > LONG:
        names = f"{names[:LONG].rpartition(', ')[0]}, ... ({len(known)} in all)"
    return f"unknown {kind} {name!r}; known: {names}"
