"""All numbers as one tidy table, one a row.

Ours are there with every metric, published ones as far as the tables show them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harl_bench.report.assembly import NOT_WITH_TOY
from harl_bench.report.collect import TOY, Entry
from harl_bench.report.grid import Table

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ("value", "sd", "n", "ci_low", "ci_high")
FORMULA = ("=", "+", "-", "@")  # a spreadsheet would run text that begins like this


def frame(tables: Sequence[Table], ours: Sequence[Entry]) -> pd.DataFrame:
    """Return one row for each number.

    `value` is the mean over `n` seeds, `ci_*` its 95 % interval from three seeds on.
    """
    import pandas as pd

    table = pd.DataFrame(_columns(tables, ours))
    return table.astype({"n": "Int64"})


def rendered(tables: Sequence[Table], ours: Sequence[Entry]) -> str:
    """Return `frame` as CSV; an apostrophe keeps text that begins like a formula text."""
    columns = {
        name: values if name in NUMBERS else list(map(_text, values))
        for name, values in _columns(tables, ours).items()
    }
    return _csv([columns, *zip(*columns.values(), strict=True)])


def _columns(tables: Sequence[Table], ours: Sequence[Entry]) -> dict[str, list[Any]]:
    shown = dict.fromkeys(entry for table in tables for row in table.rows for entry in row.entries)
    published = [entry for entry in shown if entry.source == "published"]
    remarks = {"ours": "", "published": NOT_WITH_TOY if all(entry.toy for entry in ours) else ""}
    scores = [(e, metric, score) for e in (*ours, *published) for metric, score in e.scores.items()]
    entries = [entry for entry, _, _ in scores]
    estimates = [estimate for _, _, estimate in scores]
    intervals = [estimate.interval or (None, None) for estimate in estimates]
    return {
        "source": [entry.source for entry in entries],
        "citation": [entry.citation for entry in entries],
        "method": [entry.name for entry in entries],
        "checkpoint": [entry.checkpoint for entry in entries],
        "checkpoint_sha256": [entry.sha256 for entry in entries],
        "task": [entry.task for entry in entries],
        "dataset": [entry.dataset for entry in entries],
        "protocol": [entry.protocol for entry in entries],
        "engine": [entry.engine for entry in entries],
        "settings": [" | ".join(entry.settings) for entry in entries],
        "metric": [metric for _, metric, _ in scores],
        "value": [estimate.mean for estimate in estimates],
        "sd": [estimate.sd for estimate in estimates],
        "n": [estimate.n if entry.source == "ours" else None for entry, _, estimate in scores],
        "ci_low": [low for low, _ in intervals],
        "ci_high": [high for _, high in intervals],
        "seeds": [" ".join(map(str, estimate.seeds)) for estimate in estimates],
        "marks": [" | ".join((*entry.reasons, *entry.warnings)) for entry in entries],
        "comment": [TOY if entry.toy else remarks[entry.source] for entry in entries],
    }


def grid(table: Table) -> str:
    """Return a table as CSV in the shape that it has on the page: a mean and an sd a column."""
    names = [_text(f"{column.group} {column.heading}".strip()) for column in table.columns]
    lines = [["", "", "n", *(text for name in names for text in (name, f"{name} sd"))]]
    for row in table.rows:
        pairs = [(c.estimate.mean, c.estimate.sd) if c.estimate else ("", "") for c in row.cells]
        numbers = ["" if value is None else str(value) for pair in pairs for value in pair]
        texts = [_text(row.block), _text(f"{row.label} {row.detail}".strip())]
        lines.append([*texts, row.n, *numbers])
    return _csv(lines)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
