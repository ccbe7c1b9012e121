"""Marks of a table: best of each column, significance, and footnotes on what is not comparable."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harl_bench.report.collect import METHODS, Entry
from harl_bench.report.grid import Cell, Row
from harl_bench.report.paired import PAIRED
from harl_bench.report.statistics import INTERVAL_FROM, Comparison, compare, holm
from harl_bench.report.tables import ADDED, Column, Spec

ERRORS = frozenset({"mae"})  # the lower the better
TESTS = {
    "paired": "paired t test over shared seeds",
    "Welch": "Welch's t test",
    "McNemar": "McNemar's exact test on test images where each has one seed, or equal ones",
    "permutation": "paired permutation test on test images where each has one seed, or equal ones",
    "bootstrap": "paired bootstrap test on test images where each has one seed, or equal ones",
}
NEEDED = (
    f"a test needs {INTERVAL_FROM} seeds that vary on either side, or stored answers of one, "
    "for the same labels"
)
CHOOSE = "--baseline takes a row's name, its checkpoint, or the first 8 digits of its SHA-256"
OURS, THEIRS = "†", "‡"  # with the star the only marks of a table


def bold(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """Mark the highest number of each column, of errors the lowest; footnotes are there already.

    Toy numbers compete among themselves; published ones only where real ones of ours stand beside
    them.
    """
    real = any(row.ours and not row.toy for row in rows)
    values: dict[tuple[int, bool], list[float]] = {}
    for row in rows:
        for i, cell in enumerate(row.cells):
            if _competes(row, cell, real) and not columns[i].spread:
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
    tested, called = [list(row.cells) for row in rows], names(rows)
    kinds: dict[str, None] = {}
    bases: dict[str, None] = {}
    ambiguous: dict[str, None] = {}
    for i, column in enumerate(columns if baseline else ()):
        named: dict[tuple[str, ...], list[tuple[Row, str]]] = {}
        for row, name in zip(rows, called, strict=True):
            if (entry := row.cells[i].entry) and row.ours and baseline in entry.names:
                named.setdefault(_setting(entry), []).append((row, name))
        base_rows = {}
        for setting, matches in named.items():
            if len(matches) == 1:
                base_rows[setting] = matches[0]
            titles = bases if len(matches) == 1 else ambiguous
            titles |= dict.fromkeys(_title(row) for row, _ in matches)
        tests: dict[int, tuple[Comparison, str]] = {}
        for number, row in enumerate(() if column.spread else rows):
            cell = row.cells[i]
            if cell.entry is None or (setting := _setting(cell.entry)) not in base_rows:
                continue
            base, name = base_rows[setting]
            if base is not row and (test := _test(cell, base.cells[i], column.metric)):
                tests[number] = test, name
        kinds |= dict.fromkeys(test.kind for test, _ in tests.values())
        corrected = holm([test.p for test, _ in tests.values()])
        for (number, (test, name)), p in zip(tests.items(), corrected, strict=True):
            cell = rows[number].cells[i]
            tested[number][i] = replace(cell, test=replace(test, p=p), baseline=name)
    starred = [replace(row, cells=tuple(cells)) for row, cells in zip(rows, tested, strict=True)]
    if sum(row.ours for row in rows) < 2:
        return starred, []
    differs = any(cell.stars for row in starred for cell in row.cells)
    return starred, _notes(baseline, list(kinds), differs, ", ".join(bases), ", ".join(ambiguous))


def _test(cell: Cell, base: Cell, metric: str) -> Comparison | None:
    if not (cell.estimate and base.estimate and cell.entry and base.entry):
        return None
    if len({cell.entry.contents, base.entry.contents} - {""}) > 1:  # other labels, other images
        return None
    test = compare(cell.estimate, base.estimate)
    if test is None and metric in PAIRED:
        return PAIRED[metric](cell.entry, base.entry)
    return test


def _notes(
    baseline: str | None, kinds: Sequence[str], differs: bool, bases: str, ambiguous: str
) -> list[tuple[str, str]]:
    """Return how the rows `bases` were tested against, or why nothing is marked.

    `differs` is true where a star is in the table.
    """
    if baseline is None:
        return [("", f"No significance marks: random initialization was not measured; {CHOOSE}.")]
    if not bases and not ambiguous:
        name = METHODS.get(baseline, baseline)
        text = f"the baseline, {name}, has no row in this table; {CHOOSE}."
        return [("", f"No significance marks: {text}")]
    notes = []
    if kinds:
        tests = " and ".join(TESTS[kind] for kind in kinds)
        text = f"against {bases}: {tests}, Holm-corrected within the column."
        star = ("*", f"p < 0.05, ** p < 0.01 {text}")
        notes.append(star if differs else ("", f"No difference has p < 0.05 {text}"))
    elif bases:
        text = f"nothing could be tested against {bases}; {NEEDED}."
        notes.append(("", f"No significance marks: {text}"))
    if ambiguous:
        text = f"against {ambiguous}: {baseline} names several rows; {CHOOSE}."
        notes.append(("", f"No significance marks {text}"))
    return notes


def names(rows: Sequence[Row]) -> list[str]:
    """Return what text calls each row: its label, with the checkpoint where others share it."""
    titles = [next((c.entry.title for c in row.cells if c.entry), row.label) for row in rows]
    called: dict[tuple[bool, str], set[str]] = {}
    for row, title in zip(rows, titles, strict=True):
        called.setdefault((row.ours, row.label), set()).add(title)
    return [
        row.label if len(called[row.ours, row.label]) == 1 else title
        for row, title in zip(rows, titles, strict=True)
    ]


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
    kind, _, source = other.block.partition(": ")
    line = f"{_title(row)} minus {kind.lower()} {other.label}{other.marks} ({source}): "
    line += f"{', '.join(differences)}."
    return f"{line} Inside our 95 % interval: {', '.join(inside)}." if inside else line


def _setting(entry: Entry) -> tuple[str, ...]:
    setting = (entry.source, entry.task, entry.dataset, entry.protocol, entry.engine, entry.metric)
    return *setting, str(entry.toy)


def footnotes(
    rows: Sequence[Row], columns: Sequence[Column], spec: Spec
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Mark what does not compare one to one: `OURS` where we measured it, `THEIRS` where quoted.

    A row has the mark that holds for all its numbers. Each note is one reason and whom it concerns.
    """
    concerns: dict[tuple[str, str], dict[str, list[str]]] = {}
    marked = []
    mixed = [len({_protocol(row.cells[i]) for row in rows} - {""}) > 1 for i in range(len(columns))]
    for row, name in zip(rows, names(rows), strict=True):
        symbol = OURS if row.ours else THEIRS
        reasons = [_reasons(*own, spec) for own in zip(row.cells, mixed, strict=True)]
        filled = [own for own, cell in zip(reasons, row.cells, strict=True) if cell.entry]
        for reason in dict.fromkeys(reason for own in reasons for reason in own):
            where = "" if all(reason in own for own in filled) else _where(reason, reasons, columns)
            concerns.setdefault((symbol, reason), {}).setdefault(where, []).append(name)
        whole = all(filled) and bool(filled)
        some = symbol if any(filled) and not whole else ""
        cells = [  # a mean has no entry, and the mark of the numbers that it is of
            replace(cell, marks=some if own or (cell.estimate and not cell.entry) else "")
            for own, cell in zip(reasons, row.cells, strict=True)
        ]
        marked.append(replace(row, cells=tuple(cells), marks=symbol if whole else ""))
    notes = []
    for (symbol, reason), concerned in sorted(concerns.items(), key=lambda item: item[0][0]):
        parts = [
            ", ".join(dict.fromkeys(labels)) + (f": {where}" if where else "")
            for where, labels in concerned.items()
        ]
        notes.append((symbol, f"{reason} ({'; '.join(parts)})."))
    return marked, notes


def _where(reason: str, reasons: Sequence[Sequence[str]], columns: Sequence[Column]) -> str:
    names = [c.group or c.heading for c, own in zip(columns, reasons, strict=True) if reason in own]
    return ", ".join(dict.fromkeys(names))


def _reasons(cell: Cell, mixed: bool, spec: Spec) -> list[str]:
    """Return the entry's own reasons, and its protocol if it is not the table's or the column's."""
    if cell.entry is None:
        return []
    entry, reasons = cell.entry, list(cell.entry.reasons)
    if protocol := _protocol(cell):
        other = [
            p for task, p in spec.expects if entry.task == task and not fnmatchcase(protocol, p)
        ]
        reasons += [f"protocol {protocol}, the table's is {pattern}" for pattern in other]
        if mixed and not other:
            reasons.append(f"protocol {protocol}, other rows of the column have another")
    return reasons


def _protocol(cell: Cell) -> str:
    """Return the protocol of a real number of ours or of the user's CSV, "" of others.

    What is said of the published ones is in comparability.csv.
    """
    entry = cell.entry
    if entry is None or entry.toy or (entry.source != "ours" and entry.table != ADDED):
        return ""
    return entry.protocol


def _competes(row: Row, cell: Cell, real: bool) -> bool:
    if cell.estimate is None:
        return False
    marked = row.marks or cell.marks or any(entry.reasons for entry in _entries(row, cell))
    return row.ours or (real and not marked)


def _entries(row: Row, cell: Cell) -> list[Entry]:
    """Return the entry of a number, or for a mean those of the whole row."""
    return [cell.entry] if cell.entry else row.entries
