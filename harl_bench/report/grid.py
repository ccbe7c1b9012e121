"""What every renderer prints: a table of rows in blocks, with footnotes.

All formats say the same.
"""

from dataclasses import dataclass
from functools import cached_property

from harl_bench.report.collect import Entry
from harl_bench.report.statistics import Estimate
from harl_bench.report.tables import Column

MISSING = "\N{EN DASH}"
READING = (
    "Percent; mean ± sd over n seeds. Bold: best of the column as rounded, ties all bold; "
    "marked published numbers do not compete."
)


@dataclass(frozen=True)
class Cell:
    """One number, or none.

    `marks` are footnote symbols, `stars` the significance against the baseline.
    """

    estimate: Estimate | None = None
    entry: Entry | None = None
    best: bool = False
    stars: str = ""
    marks: str = ""

    @property
    def value(self) -> str:
        """The rounded mean; an en dash when there is none."""
        return MISSING if self.estimate is None else f"{self.estimate.mean:.1f}"

    @property
    def spread(self) -> str:
        """`± sd`, or nothing from a single value."""
        return (
            "" if self.estimate is None or self.estimate.sd is None else f"± {self.estimate.sd:.1f}"
        )


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
        counts = (
            sorted({cell.estimate.n for cell in self.cells if cell.estimate and cell.entry})
            if self.ours
            else []
        )
        return (
            ""
            if not counts
            else str(counts[0])
            if len(counts) == 1
            else f"{counts[0]}{MISSING}{counts[-1]}"
        )

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
        """Whether any number is from generated data."""
        return any(row.toy for row in self.rows)

    @cached_property
    def spreads(self) -> list[bool]:
        """For each column whether any number has a spread."""
        return [any(row.cells[i].spread for row in self.rows) for i in range(len(self.columns))]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings over several columns, with their widths."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found

    @property
    def blocks(self) -> list[tuple[str, list[Row]]]:
        """Rows under their block headings, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.block, []).append(row)
        return list(found.items())
