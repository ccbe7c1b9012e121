"""Tables on the terminal.

Laid out by hand: block headings span columns, which rich's tables cannot.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from harl_bench.report.collect import TOY
from harl_bench.report.finding import finding
from harl_bench.report.grid import READING, Cell, Row, Table, warnings

GAP = "  "


def rendered(tables: Sequence[Table], width: int) -> Text:
    """Return all tables, published rows dim, below what was found.

    A banner opens them if all numbers are toy numbers.

    A table that is wider than the terminal continues below itself.
    """
    lines = []
    if all_toy := all(table.toy for table in tables):
        lines += [Text(), Text(f" {TOY} ", style="bold black on yellow")]
    if sentence := finding(tables):
        lines += [Text(), Text(sentence, style="bold")]
    for table in tables:
        lines += [Text(), Text(table.title, style="bold"), *_lines(table, width)]
        notes = [
            f"{symbol} {text}".strip()
            for symbol, text in table.notes
            if not (all_toy and text == TOY)
        ]
        lines += [Text(note, style="dim") for note in notes]
    remarks = [Text(remark, style="dim") for remark in (*warnings(tables), READING)]
    return Text("\n").join([*lines, Text(), *remarks])


def _lines(table: Table, width: int) -> Iterator[Text]:
    labels = max(cell_len(_label(row).plain) for row in table.rows)
    texts = {row: [_cell(cell) for cell in row.cells] for row in table.rows}
    wide = [
        max(map(cell_len, (c.group, c.heading, *(row[i].plain for row in texts.values()))))
        for i, c in enumerate(table.columns)
    ]
    start = 0
    while start < len(table.columns):
        end, used = start + 1, labels + 5 + wide[start]
        while end < len(table.columns) and used + len(GAP) + wide[end] <= width:
            used += len(GAP) + wide[end]
            end += 1
        part, widths, blank = range(start, end), wide[start:end], Text(" " * labels)
        if any(table.columns[i].group for i in part):
            yield _line(blank, "", [Text(table.columns[i].group) for i in part], widths, "dim")
        yield _line(blank, "n", [Text(table.columns[i].heading) for i in part], widths, "dim")
        for block, rows in table.blocks:
            yield Text(block, style="italic dim")
            for row in rows:
                label = _label(row)
                label.pad_right(labels - cell_len(label.plain))
                style = "" if row.ours else "dim"
                yield _line(label, row.n, [texts[row][i] for i in part], widths, style)
        start = end


def _line(label: Text, n: str, cells: Sequence[Text], widths: Sequence[int], style: str) -> Text:
    line = Text.assemble(label, n.rjust(5))
    for cell, width in zip(cells, widths, strict=True):
        line.append(GAP + " " * (width - cell_len(cell.plain)))
        line.append_text(cell)
    line.stylize_before(style)
    return line


def _label(row: Row) -> Text:
    return Text.assemble(
        "  ", row.label, (f"  {row.detail}" if row.detail else "", "dim"), row.marks
    )


def _cell(cell: Cell) -> Text:
    spread = f" {cell.spread}" if cell.spread else ""
    return Text.assemble(
        (cell.value, "bold green" if cell.best else ""), (spread, "dim"), cell.stars, cell.marks
    )
