"""All numbers as one tidy table, one a row.

Ours are there with every metric, published ones as far as the tables show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harl_bench.report.assembly import NOT_WITH_TOY
from harl_bench.report.collect import TOY, Entry
from harl_bench.report.grid import Table

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@")  # a spreadsheet would run text that begins like this


def frame(tables: Sequence[Table], ours: Sequence[Entry]) -> pd.DataFrame:
    """Return one row for each number.

    `value` is the mean over `n` seeds, `ci_*` its 95 % interval from three seeds on.
    """
    import pandas as pd

    shown = dict.fromkeys(entry for table in tables for row in table.rows for entry in row.entries)
    published = [entry for entry in shown if entry.source == "published"]
    remarks = {"ours": "", "published": NOT_WITH_TOY if any(entry.toy for entry in ours) else ""}
    scores = [(e, metric, score) for e in (*ours, *published) for metric, score in e.scores.items()]
    entries = [entry for entry, _, _ in scores]
    estimates = [estimate for _, _, estimate in scores]
    intervals = [estimate.interval or (None, None) for estimate in estimates]
    n = [estimate.n if entry.source == "ours" else None for entry, _, estimate in scores]
    return pd.DataFrame(
        {
            "source": [entry.source for entry in entries],
            "citation": [entry.citation for entry in entries],
            "method": [entry.name for entry in entries],
            "checkpoint": [entry.checkpoint for entry in entries],
            "checkpoint_sha256": [entry.sha256 for entry in entries],
            "task": [entry.task for entry in entries],
            "dataset": [entry.dataset for entry in entries],
            "protocol": [entry.protocol for entry in entries],
            "engine": [entry.engine for entry in entries],
            "metric": [metric for _, metric, _ in scores],
            "value": [estimate.mean for estimate in estimates],
            "sd": [estimate.sd for estimate in estimates],
            "n": pd.array(n, dtype="Int64"),
            "ci_low": [low for low, _ in intervals],
            "ci_high": [high for _, high in intervals],
            "seeds": [" ".join(map(str, estimate.seeds)) for estimate in estimates],
            "marks": [" | ".join((*entry.reasons, *entry.warnings)) for entry in entries],
            "comment": [TOY if entry.toy else remarks[entry.source] for entry in entries],
        }
    )


def rendered(tables: Sequence[Table], ours: Sequence[Entry]) -> str:
    """Return `frame` as CSV; an apostrophe keeps text that begins like a formula text."""
    table = frame(tables, ours)
    for name, texts in table.select_dtypes("str").items():
        table[name] = texts.mask(texts.str.startswith(FORMULA), "'" + texts)
    return str(table.to_csv(index=False, lineterminator="\n"))
