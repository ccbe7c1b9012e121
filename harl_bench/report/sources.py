"""The sources of published numbers, `sources.bib`: what the page links to and LaTeX cites."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from harl_bench.core.resources import data_dir

ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n(.*?)^\}$", re.S | re.M)
FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.M)


@dataclass(frozen=True)
class Source:
    """One entry; `text` is BibTeX, `key` what \\cite takes."""

    key: str
    url: str
    patterns: tuple[str, ...]
    text: str


def source_of(citation: str) -> Source | None:
    """Return where the rows of this citation come from; None for one that no entry names."""
    return next(
        (s for s in sources() if any(fnmatchcase(citation, pattern) for pattern in s.patterns)),
        None,
    )


@cache
def sources() -> tuple[Source, ...]:
    """Read all entries."""
    text = (Path(data_dir("reports")) / "published" / "sources.bib").read_text(encoding="utf-8")
    return tuple(
        Source(match[1], fields["url"], tuple(fields["source"].split("; ")), match[0])
        for match in ENTRY.finditer(text)
        for fields in (dict(FIELD.findall(match[2])),)
    )
