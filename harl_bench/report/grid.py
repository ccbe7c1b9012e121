"""The table that every format prints: rows in blocks, with footnotes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from harl_bench.report.collect import Entry
from harl_bench.report.statistics import Comparison, Estimate
from harl_bench.report.tables import Column

MISSING = "\N{EN DASH}"
READING = (
    "Percent; mean ± sd over n seeds. Bold: best of the column as rounded, ties all bold; "
    "marked published numbers do not compete."
)


@dataclass(frozen=True)
class Cell:
    """One number, or none.

    `marks` are footnote symbols. `test` compares it with the row named `baseline`, its p corrected
    for the column's other tests.
    """

    estimate: Estimate | None = None
    entry: Entry | None = None
    best: bool = False
    marks: str = ""
    test: Comparison | None = None
    baseline: str = ""

    @property
    def stars(self) -> str:
        """`*` for p < 0.05 against the baseline, `**` for p < 0.01."""
        return "*" * ((self.test.p < 0.05) + (self.test.p < 0.01)) if self.test else ""

    @cached_property
    def value(self) -> str:
        """The rounded mean; an en dash when there is none."""
        return MISSING if self.estimate is None else f"{self.estimate.mean:.1f}"

    @cached_property
    def spread(self) -> str:
        """`± sd`, or nothing from a single value."""
        sd = self.estimate.sd if self.estimate else None
        return "" if sd is None else f"± {sd:.1f}"


@dataclass(frozen=True)
class Row:
    """One method under the heading `block`; `marks` hold for all its numbers."""

    block: str
    label: str
    detail: str
    cells: tuple[Cell, ...]
    ours: bool
    toy: bool
    marks: str = ""

    @property
    def n(self) -> str:
        """Number of seeds: `3`, `1-3` when cells differ, nothing for a published row."""
        counts = [cell.estimate.n for cell in self.cells if cell.estimate and cell.entry]
        if not self.ours or not counts:
            return ""
        low, high = min(counts), max(counts)
        return str(low) if low == high else f"{low}{MISSING}{high}"

    @property
    def entries(self) -> list[Entry]:
        """The entries its numbers come from, once each."""
        return list(dict.fromkeys(cell.entry for cell in self.cells if cell.entry))


@dataclass(frozen=True)
class Table:
    """A finished table. `notes` are (symbol, text); an empty symbol makes a general remark."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...] = ()
    short: str = ""

    @cached_property
    def toy(self) -> bool:
        """True if any number is from generated data."""
        return any(row.toy for row in self.rows)

    @cached_property
    def spreads(self) -> list[bool]:
        """True for each column where any number has a spread."""
        return [any(row.cells[i].spread for row in self.rows) for i in range(len(self.columns))]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over several columns, with their widths."""
        adjacent = groupby(column.group for column in self.columns)
        return [(group, len(list(columns))) for group, columns in adjacent]

    @property
    def blocks(self) -> list[tuple[str, list[Row]]]:
        """Rows under their block headings, in order."""
        blocks: dict[str, list[Row]] = {}
        for row in self.rows:
            blocks.setdefault(row.block, []).append(row)
        return list(blocks.items())


def warnings(tables: Sequence[Table]) -> list[str]:
    """Return what the runs of the tables warn of, once each, with the rows that it concerns."""
    entries = dict.fromkeys(e for table in tables for row in table.rows for e in row.entries)
    concerned: dict[str, list[str]] = {}
    for entry in entries:
        for warning in entry.warnings:
            concerned.setdefault(f"{entry.protocol}: {warning}", []).append(entry.title)
    return [f"{', '.join(names)}, {text}." for text, names in concerned.items()]
