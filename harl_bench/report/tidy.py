"""All numbers as tidy CSV: one a row, ours with every metric, published ones as far as the tables
show them.
"""

import csv
import io
from collections.abc import Sequence

from harl_bench.report.assembly import NOT_WITH_TOY
from harl_bench.report.collect import TOY, Entry
from harl_bench.report.grid import Table

FIELDS = (
    "source",
    "citation",
    "method",
    "checkpoint",
    "checkpoint_sha256",
    "task",
    "dataset",
    "protocol",
    "engine",
    "metric",
    "value",
    "sd",
    "n",
    "ci_low",
    "ci_high",
    "seeds",
    "marks",
    "comment",
)


def rendered(tables: Sequence[Table], ours: Sequence[Entry]) -> str:
    """CSV text with a header line; `value` is the mean over `n` seeds, `ci_*` its 95 % interval
    from three on.
    """
    shown = dict.fromkeys(entry for table in tables for row in table.rows for entry in row.entries)
    toy = any(entry.toy for entry in ours)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for entry in [*ours, *(e for e in shown if e.source == "published")]:
        comment = TOY if entry.toy else NOT_WITH_TOY if toy and entry.source == "published" else ""
        for metric, estimate in entry.scores.items():
            low, high = estimate.interval or ("", "")
            row = (
                entry.source,
                entry.citation,
                entry.name,
                entry.checkpoint,
                entry.sha256,
                entry.task,
                entry.dataset,
                entry.protocol,
                entry.engine,
                metric,
                estimate.mean,
                "" if estimate.sd is None else estimate.sd,
                estimate.n if entry.source == "ours" else "",
                low,
                high,
                " ".join(map(str, estimate.seeds)),
                " | ".join((*entry.reasons, *entry.warnings)),
                comment,
            )
            writer.writerow([_safe(value) for value in row])
    return text.getvalue()


def _safe(value: object) -> object:
    """A spreadsheet runs text that begins like a formula; an apostrophe keeps it text.

    Floats keep all their digits.
    """
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
    return value
