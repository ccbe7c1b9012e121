"""How a LaTeX table fits a page: its font size, one text column or both, or several parts.

Widths are estimated from the letters of Computer Modern, within 3.5 % of what TeX sets, for the
narrowest pages in use: article with one column (345 pt), article with two (229 pt each, 469 pt
over both). IEEE's, CVPR's and NeurIPS's are wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import ceil
from textwrap import wrap
from typing import Literal

from harl_bench.report.grid import Cell, Row, Table

Page = Literal["one", "two"]

# Command, pt of an em, pt between columns.
SMALL = (r"\small\setlength{\tabcolsep}{4pt}", 9.3, 4.0)
FOOTNOTE = (r"\footnotesize\setlength{\tabcolsep}{3pt}", 8.6, 3.0)
SCRIPT = (r"\scriptsize\setlength{\tabcolsep}{2pt}", 8.0, 2.0)
Size = tuple[str, float, float]
NARROW, WIDE = 229.0, 469.0
# What is tried in this order; the last is split.
TRIED: dict[Page, list[tuple[Size, float]]] = {
    "one": [(SMALL, 345.0), (FOOTNOTE, 345.0), (SCRIPT, 345.0)],
    "two": [(SMALL, NARROW), (FOOTNOTE, NARROW), (SMALL, WIDE), (FOOTNOTE, WIDE), (SCRIPT, WIDE)],
}
MARK = 3.7  # pt: a raised star, in every size
SPREAD_EM = 8.0  # pt: \scriptsize, whatever the table's size
SURE = 0.97  # of the page, as widths are estimates
LONG = 24  # letters: longer words are broken
LABEL = 0.3  # of the page at most; longer names have several lines
SLIM, BROAD = frozenset(" .,:;'|!ijlt()[]-/"), frozenset("mw%&@")


@dataclass(frozen=True)
class Layout:
    """How a table is set.

    Args:
        size: the commands of its font size, `em` its em in pt.
        over_both: a float over both text columns.
        label, n, widths: of the columns of names, of n, and of each number, pt.
        parts: the columns of each tabular.
        width: of the page or of its text column, pt.
    """

    size: str
    em: float
    over_both: bool
    label: float
    n: float
    widths: list[float]
    parts: list[list[int]]
    width: float

    def height(self, row: Row) -> float:
        """Return the height of a row, whose name may have several lines."""
        name = self.em * em(row.label) + SPREAD_EM * em(f" {row.detail}")
        return 1.25 * self.em * max(1, ceil(1.25 * name / self.label))

    def lines(self, note: str) -> int:
        """Return the number of lines of a note."""
        return ceil(1.05 * FOOTNOTE[1] * em(note) / self.width)


def layout(table: Table, page: Page) -> Layout:
    """Return the largest size in which the table fits, in parts where none does."""
    everything = list(range(len(table.columns)))
    for size, width in TRIED[page]:
        label, n, rest = _label(table, size, width), _n(size), _columns(table, size)
        if label + n + sum(rest) <= SURE * width:
            return Layout(size[0], size[1], width == WIDE, label, n, rest, [everything], width)
    size, width = TRIED[page][-2][0], TRIED[page][-1][1]
    label, n, rest = _label(table, size, width), _n(size), _columns(table, size)
    parts: list[list[int]] = [[]]
    room = SURE * width - label - n
    for unit in _units(table):
        if sum(rest[i] for i in unit) > room:  # a group of columns that never fits
            pieces = [[i] for i in unit]
        else:
            pieces = [unit]
        for piece in pieces:
            if parts[-1] and sum(rest[i] for i in parts[-1] + piece) > room:
                parts.append([])
            parts[-1] += piece
    return Layout(size[0], size[1], width == WIDE, label, n, rest, parts, width)


@cache
def em(text: str) -> float:
    """Return the width of a text in em."""
    wide = sum(0.27 * (c.isupper() or c in BROAD) for c in text)
    return 0.5 * len(text) + wide - sum(0.2 * (c in SLIM) for c in text)


def stacked(text: str, columns: Sequence[int], table: Table) -> list[str]:
    """Return a heading in lines that are no wider than the numbers below it, if it has spaces."""
    if not text.strip():
        return [""]
    letters = sum(max(_number(row.cells[i]) for row in table.rows) for i in columns) / 0.55
    return wrap(text, max(8, round(letters)), break_long_words=False)


def _units(table: Table) -> list[list[int]]:
    """Return columns that belong together: those of one heading."""
    numbered = groupby(enumerate(table.columns), key=lambda item: item[1].group)
    units = []
    for group, members in numbered:
        indices = [i for i, _ in members]
        units += [indices] if group else [[i] for i in indices]
    return units


def _label(table: Table, size: Size, width: float) -> float:
    """Return the width of the names, at most `LABEL` of the page, with that of n."""
    longest = max(size[1] * em(row.label) + SPREAD_EM * em(f" {row.detail}") for row in table.rows)
    words = [word for row in table.rows for word in f"{row.label} {row.detail}".split()]
    least = size[1] * max(min(em(word), em("x" * LONG)) for word in words or [""])
    return max(min(longest + 6, LABEL * width), least)


def _n(size: Size) -> float:
    """Return the width of the column n, and of the space beside it and the names."""
    return 4 * size[2] + 1.5 * size[1]


def _columns(table: Table, size: Size) -> list[float]:
    """Return the width of each column with the space on both sides of it."""
    _, pt, gap = size
    widths = [
        max(pt * em(column.heading), *(_points(row.cells[i], row, pt) for row in table.rows))
        for i, column in enumerate(table.columns)
    ]
    for unit in _units(table):
        lines = stacked(table.columns[unit[0]].group, unit, table)
        missing = (
            pt * max(map(em, lines)) - sum(widths[i] for i in unit) - 2 * gap * (len(unit) - 1)
        )
        for i in unit:
            widths[i] += max(0.0, missing) / len(unit)
    return [width + 2 * gap for width in widths]


def _points(cell: Cell, row: Row, pt: float) -> float:
    spread = SPREAD_EM * (em(cell.spread) + 0.2) if cell.spread else 0.0
    bold = 1.15 if cell.best else 1.0
    return pt * bold * em(cell.value) + spread + MARK * len(cell.stars + cell.marks)


def _number(cell: Cell) -> float:
    return em(cell.value) + em(cell.spread)
