"""Marks of a table: best of each column, significance, and footnotes on what is not comparable."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harl_bench.report.collect import METHODS, Entry
from harl_bench.report.grid import Cell, Row
from harl_bench.report.mcnemar import mcnemar
from harl_bench.report.statistics import INTERVAL_FROM, Comparison, compare, holm
from harl_bench.report.tables import Column, Spec

ERRORS = frozenset({"mae"})  # the lower the better
TESTS = {
    "paired": "paired t test over shared seeds",
    "Welch": "Welch's t test",
    "McNemar": "McNemar's exact test on the test images where each has one seed",
}
NEEDED = f"a test needs {INTERVAL_FROM} seeds that vary on either side, or stored answers of one"
CHOOSE = "--baseline takes a row's name, its checkpoint, or the first 8 digits of its SHA-256"
SYMBOLS = "†‡§¶‖"  # then doubled, tripled, ...


def bold(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Mark the highest number of each column, of errors the lowest.

    Toy numbers compete among themselves; published ones only where real ones of ours stand beside
    them.
    """
    real = any(row.ours and not row.toy for row in rows)
    values: dict[tuple[int, bool], list[float]] = {}
    for row in rows:
        for i, cell in enumerate(row.cells):
            if _competes(row, cell, real):
                values.setdefault((i, row.toy), []).append(float(cell.value))
    best = {}
    for (i, toy), competing in values.items():
        if len(competing) > 1:
            extreme = min if columns[i].metric in ERRORS else max
            best[i, toy] = f"{extreme(competing):.1f}"
    marked = []
    for row in rows:
        cells = [
            replace(cell, best=_competes(row, cell, real) and cell.value == best.get((i, row.toy)))
            for i, cell in enumerate(row.cells)
        ]
        marked.append(replace(row, cells=tuple(cells)))
    return marked


def stars(
    rows: Sequence[Row], columns: Sequence[Column], baseline: str | None
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Mark what differs from the baseline measured in the same setting.

    Returns:
        The rows, and the notes: which row is the baseline and how it was tested, or why nothing is
            marked. A table with fewer than two rows of ours has no note.
    """
    tested = [list(row.cells) for row in rows]
    kinds: dict[str, None] = {}
    bases: dict[str, None] = {}
    ambiguous: dict[str, None] = {}
    for i, column in enumerate(columns if baseline else ()):
        named: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            if (entry := row.cells[i].entry) and row.ours and baseline in entry.names:
                named.setdefault(_setting(entry), []).append(row)
        base_rows = {}
        for setting, matches in named.items():
            if len(matches) == 1:
                base_rows[setting] = matches[0]
            titles = bases if len(matches) == 1 else ambiguous
            titles |= dict.fromkeys(map(_title, matches))
        tests: dict[int, tuple[Comparison, str]] = {}
        for number, row in enumerate(rows):
            cell = row.cells[i]
            base = base_rows.get(_setting(cell.entry)) if cell.entry else None
            if base and base is not row and (test := _test(cell, base.cells[i], column.metric)):
                tests[number] = test, base.label
        kinds |= dict.fromkeys(test.kind for test, _ in tests.values())
        corrected = holm([test.p for test, _ in tests.values()])
        for (number, (test, name)), p in zip(tests.items(), corrected, strict=True):
            cell = rows[number].cells[i]
            tested[number][i] = replace(cell, test=replace(test, p=p), baseline=name)
    starred = [replace(row, cells=tuple(cells)) for row, cells in zip(rows, tested, strict=True)]
    if sum(row.ours for row in rows) < 2:
        return starred, []
    return starred, _notes(baseline, list(kinds), ", ".join(bases), ", ".join(ambiguous))


def _test(cell: Cell, base: Cell, metric: str) -> Comparison | None:
    if not (cell.estimate and base.estimate and cell.entry and base.entry):
        return None
    test = compare(cell.estimate, base.estimate)
    return mcnemar(cell.entry, base.entry) if test is None and metric == "top1" else test


def _notes(
    baseline: str | None, kinds: Sequence[str], bases: str, ambiguous: str
) -> list[tuple[str, str]]:
    """Return how the rows `bases` were tested against, or why nothing is marked."""
    if baseline is None:
        return [("", f"No significance marks: random initialisation was not measured; {CHOOSE}.")]
    if not bases and not ambiguous:
        name = METHODS.get(baseline, baseline)
        text = f"the baseline, {name}, has no row in this table; {CHOOSE}."
        return [("", f"No significance marks: {text}")]
    notes = []
    if kinds:
        tests = " and ".join(TESTS[kind] for kind in kinds)
        text = f"against {bases}: {tests}, Holm-corrected within the column."
        notes.append(("*", f"p < 0.05, ** p < 0.01 {text}"))
    elif bases:
        text = f"nothing could be tested against {bases}; {NEEDED}."
        notes.append(("", f"No significance marks: {text}"))
    if ambiguous:
        text = f"against {ambiguous}: {baseline} names several rows; {CHOOSE}."
        notes.append(("", f"No significance marks {text}"))
    return notes


def _title(row: Row) -> str:
    return f"{row.label} {row.detail}".strip()


def distances(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Return how far each of our methods lies from the published numbers of the same name.

    Toy rows are compared with none.
    """
    ours = [row for row in rows if row.ours and not row.toy]
    published = [row for row in rows if not row.ours]
    lines = [
        _distance(row, other, columns)
        for row in ours
        for other in published
        if other.label.lower() == row.label.lower()
    ]
    return [line for line in lines if line]


def _distance(row: Row, other: Row, columns: Sequence[Column]) -> str:
    differences, inside = [], []
    for column, mine, theirs in zip(columns, row.cells, other.cells, strict=True):
        if mine.estimate and theirs.estimate:
            name = f"{column.group} {column.heading}".strip()
            difference = mine.estimate.mean - theirs.estimate.mean
            differences.append(f"{name} {difference:+.1f}{theirs.marks}")
            low, high = mine.estimate.interval or (1.0, 0.0)
            if low <= theirs.estimate.mean <= high:
                inside.append(name)
    if not differences:
        return ""
    source = other.block.removeprefix("Published: ")
    line = f"{_title(row)} minus published {other.label}{other.marks} ({source}): "
    line += f"{', '.join(differences)}."
    return f"{line} Inside our 95 % interval: {', '.join(inside)}." if inside else line


def _setting(entry: Entry) -> tuple[str, ...]:
    setting = (entry.source, entry.task, entry.dataset, entry.protocol, entry.engine, entry.metric)
    return *setting, str(entry.toy)


def footnotes(rows: Sequence[Row], spec: Spec) -> tuple[list[Row], list[tuple[str, str]]]:
    """Mark with a footnote symbol each method, or each number, that does not compare.

    The method gets the symbols that hold for all its numbers.
    """
    symbols: dict[str, str] = {}
    marked = []
    for row in rows:
        marks = [_symbols(cell, spec, symbols) for cell in row.cells]
        filled = [set(own) for own, cell in zip(marks, row.cells, strict=True) if cell.estimate]
        common = set.intersection(*filled) if filled else set()
        cells = [
            replace(cell, marks=" ".join(s for s in own if s not in common))
            for own, cell in zip(marks, row.cells, strict=True)
        ]
        of_row = " ".join(s for s in symbols.values() if s in common)
        marked.append(replace(row, cells=tuple(cells), marks=of_row))
    return marked, [(symbol, f"{reason}.") for reason, symbol in symbols.items()]


def _symbols(cell: Cell, spec: Spec, symbols: dict[str, str]) -> list[str]:
    if cell.entry is None or cell.estimate is None:
        return []
    entry, reasons = cell.entry, list(cell.entry.reasons)
    if entry.source == "ours" and not entry.toy:
        for task, pattern in spec.expects:
            if entry.task == task and not fnmatchcase(entry.protocol, pattern):
                reasons.append(f"protocol {entry.protocol}, the table's is {pattern}")
    for reason in reasons:
        repeats, i = divmod(len(symbols), len(SYMBOLS))
        symbols.setdefault(reason, SYMBOLS[i] * (1 + repeats))
    return [symbols[reason] for reason in reasons]


def _competes(row: Row, cell: Cell, real: bool) -> bool:
    if cell.estimate is None or cell.entry is None:
        return False
    return row.ours or (real and not cell.entry.reasons)
