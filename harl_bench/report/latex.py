r"""Tables as LaTeX for \input; the document needs \usepackage{booktabs} and nothing else.

Published rows pass through \published, slanted unless the document defines it otherwise, e.g. as
grey.
"""

from collections.abc import Iterator, Sequence

from harl_bench.report.collect import TOY
from harl_bench.report.grid import MISSING, READING, Cell, Row, Table

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
}
# The more columns, the smaller: nine numbers with spreads fit two columns of a conference page.
SIZES = (
    (5, r"\small"),
    (7, r"\footnotesize\setlength{\tabcolsep}{3.5pt}"),
    (10**6, r"\scriptsize\setlength{\tabcolsep}{2.5pt}"),
)


def rendered(tables: Sequence[Table]) -> str:
    """Return all tables, one `table` environment each."""
    parts = [PREAMBLE]
    if any(table.toy for table in tables):
        parts.append(f"% {TOY}")
    parts += ["\n".join(_environment(table)) for table in tables]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return a name as plain text.

    Letters that pdflatex does not know are given by their code, e.g. U+4E2D.
    """
    return "".join(map(_letter, text))


def _letter(c: str) -> str:
    if c in ESCAPES:
        return ESCAPES[c]
    return c if c.isascii() or "À" <= c <= "ÿ" else rf"\texttt{{U+{ord(c):04X}}}"


def _environment(table: Table) -> Iterator[str]:
    width = len(table.columns)
    star = "*" if width > SIZES[0][0] else ""
    yield rf"\begin{{table{star}}}[t]"
    yield r"\centering"
    yield next(size for most, size in SIZES if width <= most)
    toy = rf" \textbf{{{TOY}}}" if table.toy else ""
    yield rf"\caption{{{escape(table.title)}.{toy}}}"
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in table.name)
    yield rf"\label{{tab:{name}}}"
    yield r"\par\smallskip"
    yield rf"\begin{{tabular}}{{lr{'r' * width}}}"
    yield r"\toprule"
    if any(group for group, _ in table.groups):
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{escape(group)}}}" for group, n in table.groups]
        yield rf" & & {' & '.join(spans)} \\"
        yield "".join(_rules(table))
    yield rf" & $n$ & {' & '.join(escape(column.heading) for column in table.columns)} \\"
    for block, rows in table.blocks:
        yield r"\midrule"
        yield rf"\multicolumn{{{width + 2}}}{{l}}{{\emph{{{escape(block)}}}}} \\"
        for row in rows:
            cells = [_label(row), escape(row.n), *(_cell(cell, row) for cell in row.cells)]
            yield rf"{' & '.join(cells)} \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
    notes = (*table.notes, ("", READING))
    yield "\\par\n".join(escape(f"{symbol} {text}".strip()) for symbol, text in notes)
    yield r"\end{minipage}"
    yield rf"\end{{table{star}}}"


def _rules(table: Table) -> Iterator[str]:
    start = 3
    for group, n in table.groups:
        if group:
            yield rf"\cmidrule(lr){{{start}-{start + n - 1}}}"
        start += n


def _label(row: Row) -> str:
    detail = rf" {{\scriptsize {escape(row.detail)}}}" if row.detail else ""
    name = escape(row.label) + detail + _raised(row.marks)
    return name if row.ours else rf"\published{{{name}}}"


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
