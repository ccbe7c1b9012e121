"""Tables as GitHub Markdown, through tabulate."""

import html
import re
from collections.abc import Sequence

from tabulate import tabulate

from harl_bench.report.collect import TOY
from harl_bench.report.grid import READING, Cell, Row, Table, warnings

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")


def rendered(tables: Sequence[Table]) -> str:
    """Return one document with all tables; published rows in italics."""
    parts = ["# Results"]
    if all(table.toy for table in tables):
        parts.append(f"> **{TOY}**")
    parts.append(READING)
    for table in tables:
        notes = [f"- {escape(f'{symbol} {text}'.strip())}" for symbol, text in table.notes]
        parts += [f"## {escape(table.title)}", grid(table), "\n".join(notes)]
    if remarks := warnings(tables):
        parts.append("\n".join(f"- {escape(remark)}" for remark in remarks))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return a name as plain text: no markup, no HTML, no broken table."""
    return SPECIAL.sub(r"\\\1", html.escape(text, quote=False))


def grid(table: Table) -> str:
    """Return one table without its notes."""
    names = [f"{column.group} {column.heading}".strip() for column in table.columns]
    headers = ["", "n", *map(escape, names)]
    lines: list[list[str]] = []
    for block, rows in table.blocks:
        lines.append([f"**{escape(block)}**", *[""] * (len(headers) - 1)])
        lines += [[_label(row), row.n, *(_cell(cell, row) for cell in row.cells)] for row in rows]
    align = ["left", *["right"] * (len(headers) - 1)]
    return str(tabulate(lines, headers, tablefmt="pipe", colalign=align, disable_numparse=True))


def _label(row: Row) -> str:
    name = escape(f"{row.label} ({row.detail})" if row.detail else row.label) + escape(row.marks)
    return name if row.ours else f"*{name}*"


def _cell(cell: Cell, row: Row) -> str:
    value = cell.value
    if cell.best:
        value = f"**{value}**"
    elif cell.estimate and not row.ours:
        value = f"*{value}*"
    return f"{value} {cell.spread}".strip() + escape(cell.stars + cell.marks)
