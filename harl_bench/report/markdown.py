"""Tables as GitHub Markdown, through tabulate."""

import re
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from harl_bench.report.collect import TOY
from harl_bench.report.grid import READING, Cell, Row, Table

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")


def rendered(tables: Sequence[Table]) -> str:
    """One document with all tables; published rows in italics."""
    parts = ["# Results"]
    if any(table.toy for table in tables):
        parts.append(f"> **{TOY}**")
    parts.append(READING)
    for table in tables:
        parts += [f"## {escape(table.title)}", _grid(table), "\n".join(_notes(table))]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """A name as plain text: no markup, no HTML, no broken table."""
    return SPECIAL.sub(
        r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    )


def _grid(table: Table) -> str:
    headers = [
        "",
        "n",
        *(escape(f"{column.group} {column.heading}".strip()) for column in table.columns),
    ]
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
    value = (
        f"**{cell.value}**"
        if cell.best
        else cell.value
        if row.ours or not cell.estimate
        else f"*{cell.value}*"
    )
    return f"{value} {cell.spread}".strip() + escape(cell.stars + cell.marks)


def _notes(table: Table) -> Iterator[str]:
    for symbol, text in table.notes:
        yield "- " + escape(f"{symbol} {text}".strip())
