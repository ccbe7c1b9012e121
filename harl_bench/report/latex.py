r"""Tables as LaTeX for \input; the document needs \usepackage{booktabs} and nothing else.

Published rows pass through \published, slanted unless the document defines it otherwise, e.g. as
gray.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from harl_bench.report.collect import TOY
from harl_bench.report.fit import LONG, Layout, Page, em, layout, stacked
from harl_bench.report.grid import MISSING, READING, Cell, Row, Table, warnings
from harl_bench.report.sources import Source, source_of

PREAMBLE = "\n".join(
    (
        r"% Written by harl-bench report. Needs \usepackage{booktabs}. "
        "One table environment for each table.",
        r"\providecommand{\published}[1]{{\slshape #1}}",
        r"\providecommand{\spread}[1]{\,{\scriptsize$\pm$#1}}",
    )
)
ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "[": "{[}",
    "*": "{*}",  # after \\ both would be its arguments
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "\N{EN DASH}": "--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "‖": r"$\|$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "\N{ZERO WIDTH SPACE}": r"\allowbreak{}",
    "\N{ZERO WIDTH NON-JOINER}": "{}",
}
HYPHENS = re.compile(r"-(?=-)")  # two of them would be set as a dash
NOT_IN_OT1 = "ÐðÞþ"
BREAK = "\N{ZERO WIDTH SPACE}"
PIECE = 8  # letters between the breaks of a long word
HEAD, PAGE = 40.0, 480.0  # pt: of a tabular's headings, and of a float with its caption


def rendered(tables: Sequence[Table], page: Page = "two") -> str:
    """Return all tables as floats for a page of one or two text columns."""
    parts = [PREAMBLE]
    if all(table.toy for table in tables):
        parts.append(f"% {TOY}")
    parts += ["\n".join(environment(table, page)) for table in tables]
    if remarks := warnings(tables):
        parts.append("\n".join(f"% {escape(remark)}" for remark in remarks))
    return "\n\n".join(parts) + "\n"


def bibliography(tables: Sequence[Table]) -> str:
    r"""Return the BibTeX entries that the tables' \cite commands name; "" without any."""
    cited = dict.fromkeys(s for t in tables for s in _sources(t.rows))
    return "\n\n".join(source.text for source in cited) + "\n" if cited else ""


def _sources(rows: Sequence[Row]) -> list[Source]:
    citations = dict.fromkeys(entry.citation for row in rows for entry in row.entries)
    return [source for citation in citations if citation and (source := source_of(citation))]


def escape(text: str) -> str:
    """Return a name as plain text.

    Letters that pdflatex does not know by default are given by their code, e.g. U+4E2D.
    """
    return "".join(map(_letter, HYPHENS.sub("-\N{ZERO WIDTH NON-JOINER}", text)))


def _letter(c: str) -> str:
    if c in ESCAPES:
        return ESCAPES[c]
    if c.isascii() or ("À" <= c <= "ÿ" and c not in NOT_IN_OT1):
        return c
    return rf"\texttt{{U+{ord(c):04X}}}"


def environment(table: Table, page: Page = "two") -> Iterator[str]:
    """Yield the lines of one table, in several floats if it is longer than a page."""
    fitted = layout(table, page)
    star = "*" if fitted.over_both else ""
    toy = rf" \textbf{{{TOY}}}" if table.toy else ""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in table.name)
    for number, blocks in enumerate(_floats(table, fitted)):
        yield rf"\begin{{table{star}}}[tp]"
        yield r"\centering"
        yield fitted.size
        if number:
            yield r"\addtocounter{table}{-1}"
        about = " (continued)." if number else f".{toy}"
        yield rf"\caption{{{_text(table.title)}{about}}}"
        if not number:
            yield rf"\label{{tab:{name}}}"
        for block in blocks:
            yield r"\par\smallskip"
            yield block
        yield rf"\end{{table{star}}}"


def _floats(table: Table, fitted: Layout) -> list[list[str]]:
    """Return tabulars and notes by the float that has room for them."""
    blocks: list[tuple[float, str]] = []
    for columns in fitted.parts:
        chunks: list[tuple[float, list[Row]]] = [(HEAD, [])]
        for row in table.rows:
            height, rows = chunks[-1]
            if rows and height + fitted.height(row) > PAGE:
                height, rows = HEAD, []
                chunks.append((height, rows))
            height += fitted.height(row) + HEAD / 2 * (not rows or rows[-1].block != row.block)
            rows.append(row)
            chunks[-1] = height, rows
        for height, rows in chunks:
            part = replace(table, rows=tuple(rows))
            blocks.append((height, "\n".join(_tabular(part, columns, fitted))))
    notes = [f"{symbol} {text}".strip() for symbol, text in table.notes if text != TOY]
    for text in (*notes, READING):
        note = rf"\parbox{{\linewidth}}{{\footnotesize\raggedright {_text(text)}}}"
        blocks.append((fitted.lines(text) * 9.5 + 3, note))
    floats: list[list[str]] = [[]]
    free = PAGE
    for height, block in blocks:
        if height > free and floats[-1]:
            floats.append([])
            free = PAGE
        floats[-1].append(block)
        free -= height
    return floats


def _tabular(table: Table, columns: Sequence[int], fitted: Layout) -> Iterator[str]:
    """Yield one tabular with some of the columns."""
    width, points = len(columns), fitted.label + sum(fitted.widths[i] for i in columns)
    yield rf"\begin{{tabular}}{{p{{{fitted.label:.0f}pt}}r{'r' * width}}}"
    yield r"\toprule"
    groups = [
        (group, [i for i, _ in members])
        for group, members in groupby(
            ((i, table.columns[i]) for i in columns), key=lambda item: item[1].group
        )
    ]
    if any(group for group, _ in groups):
        spans = []
        for group, members in groups:
            lines = r" \\ ".join(map(escape, stacked(group, members, table)))
            text = rf"\shortstack{{{lines}}}" if r"\\" in lines else lines
            spans.append(rf"\multicolumn{{{len(members)}}}{{c}}{{{text}}}")
        yield rf" & & {' & '.join(spans)} \\"
        yield "".join(_rules(groups))
    yield rf" & $n$ & {' & '.join(escape(table.columns[i].heading) for i in columns)} \\"
    for block, rows in table.blocks:
        yield r"\midrule"
        cited = "".join(rf"~\cite{{{source.key}}}" for source in _sources(rows))
        heading = rf"\emph{{{_text(block)}}}{cited}"
        if fitted.em * (em(block) + 4 * bool(cited)) > points:  # would widen the last column
            heading = rf"\parbox{{{0.95 * points:.0f}pt}}{{\raggedright {heading}\strut}}"
        yield rf"\multicolumn{{{width + 2}}}{{l}}{{{heading}}} \\"
        for row in rows:
            cells = [_label(row), escape(row.n), *(_cell(row.cells[i], row) for i in columns)]
            yield rf"{' & '.join(cells)} \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _rules(groups: Sequence[tuple[str, Sequence[int]]]) -> Iterator[str]:
    start = 3
    for group, members in groups:
        if group:
            yield rf"\cmidrule(lr){{{start}-{start + len(members) - 1}}}"
        start += len(members)


def _label(row: Row) -> str:
    detail = rf" {{\scriptsize {_text(row.detail)}}}" if row.detail else ""
    name = _text(row.label) + detail + _raised(row.marks)
    return r"\raggedright " + (name if row.ours else rf"\published{{{name}}}")


def _text(text: str) -> str:
    """Return a text whose long words may be broken."""
    words = text.split(" ")
    return " ".join(
        escape(
            BREAK.join(w[i : i + PIECE] for i in range(0, len(w), PIECE)) if len(w) > LONG else w
        )
        for w in words
    )


def _cell(cell: Cell, row: Row) -> str:
    if cell.estimate is None:
        return escape(MISSING)
    value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value
    if not row.ours:
        value = rf"\published{{{value}}}"
    spread = rf"\spread{{{cell.spread.removeprefix('± ')}}}" if cell.spread else ""
    return value.replace("-", "$-$") + spread + _raised(cell.stars + cell.marks)


def _raised(marks: str) -> str:
    return rf"\textsuperscript{{{escape(marks)}}}" if marks else ""
