"""What is marked in a table: the best of each column, significance, and footnotes for what does not
compare.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harl_bench.report.collect import METHODS, Entry
from harl_bench.report.grid import Cell, Row
from harl_bench.report.mcnemar import mcnemar
from harl_bench.report.statistics import INTERVAL_FROM, compare, holm
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
    """The highest of each column, of errors the lowest.

    Toy numbers compete among themselves; published ones only where real ones of ours stand beside
    them.
    """
    real = any(row.ours and not row.toy for row in rows)
    values: dict[tuple[int, bool], list[float]] = {}
    for row in rows:
        for i, cell in enumerate(row.cells):
            if _competes(row, cell, real):
                values.setdefault((i, row.toy), []).append(float(cell.value))
    best = {
        key: f"{(min if columns[key[0]].metric in ERRORS else max)(found):.1f}"
        for key, found in values.items()
        if len(found) > 1
    }
    return [
        replace(
            row,
            cells=tuple(
                replace(
                    cell, best=_competes(row, cell, real) and cell.value == best.get((i, row.toy))
                )
                for i, cell in enumerate(row.cells)
            ),
        )
        for row in rows
    ]


def stars(
    rows: Sequence[Row], columns: Sequence[Column], baseline: str | None
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Mark what differs from the baseline measured in the same setting.

    Returns:
        The rows, and the notes: which row is the baseline and how it was tested, or why nothing is
            marked. A table with
        fewer than two rows of ours compares nothing and has no note.
    """
    found: dict[tuple[int, int], str] = {}
    kinds: dict[str, None] = {}
    against: dict[str, None] = {}
    several: dict[str, None] = {}
    for i, metric in enumerate([column.metric for column in columns] if rows and baseline else []):
        column = [row.cells[i] for row in rows]
        named: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            if (entry := row.cells[i].entry) and row.ours and baseline in entry.called:
                named.setdefault(_setting(entry), []).append(row)
        bases = {setting: of[0].cells[i] for setting, of in named.items() if len(of) == 1}
        against |= dict.fromkeys(_called(of[0]) for of in named.values() if len(of) == 1)
        several |= dict.fromkeys(_called(row) for of in named.values() if len(of) > 1 for row in of)
        tests = []
        for place, cell in enumerate(column):
            base = bases.get(_setting(cell.entry)) if cell.entry else None
            if base and base is not cell and cell.estimate and base.estimate:
                test = compare(cell.estimate, base.estimate)
                if test is None and metric == "top1" and cell.entry and base.entry:
                    test = mcnemar(cell.entry, base.entry)
                tests.append((place, test))
        done = [(place, test) for place, test in tests if test]
        for (place, test), p in zip(done, holm([test.p for _, test in done]), strict=True):
            kinds[test.kind] = None
            found[place, i] = "**" if p < 0.01 else "*" if p < 0.05 else ""
    starred = [
        replace(
            row,
            cells=tuple(
                replace(cell, stars=found.get((place, i), "")) for i, cell in enumerate(row.cells)
            ),
        )
        for place, row in enumerate(rows)
    ]
    return starred, _notes(rows, baseline, kinds, against, several)


def _notes(
    rows: Sequence[Row],
    baseline: str | None,
    kinds: Iterable[str],
    against: Iterable[str],
    several: Iterable[str],
) -> list[tuple[str, str]]:
    """Which rows are the baseline, or why there is none."""
    ours = [_called(row) for row in rows if row.ours]
    if len(ours) < 2:
        return []
    bases, doubtful, how = (
        ", ".join(against),
        ", ".join(several),
        " and ".join(TESTS[kind] for kind in kinds),
    )
    notes = []
    if how:
        notes.append(
            (
                "*",
                f"p < 0.05, ** p < 0.01 against {bases}: {how}, Holm-corrected within the column.",
            )
        )
    elif bases:
        notes.append(
            ("", f"No significance marks: nothing could be tested against {bases}; {NEEDED}.")
        )
    if doubtful:
        notes.append(
            (
                "",
                f"No significance marks against {doubtful}: {baseline} names several rows; "
                f"{CHOOSE}.",
            )
        )
    if baseline is None:
        notes.append(
            ("", f"No significance marks: random initialisation was not measured; {CHOOSE}.")
        )
    elif not bases and not doubtful:
        known = METHODS.get(baseline, baseline)
        notes.append(
            (
                "",
                f"No significance marks: the baseline, {known}, has no row in this table; "
                f"{CHOOSE}.",
            )
        )
    return notes


def _called(row: Row) -> str:
    return f"{row.label} {row.detail}".strip()


def distances(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """How far each of our methods lies from the published numbers of the same name; toy rows are
    compared with none.
    """
    lines = []
    for row in (row for row in rows if row.ours and not row.toy):
        for other in (
            other for other in rows if not other.ours and other.label.lower() == row.label.lower()
        ):
            apart, inside = [], []
            for column, mine, theirs in zip(columns, row.cells, other.cells, strict=True):
                if mine.estimate and theirs.estimate:
                    name = f"{column.group} {column.heading}".strip()
                    apart.append(
                        f"{name} {mine.estimate.mean - theirs.estimate.mean:+.1f}{theirs.marks}"
                    )
                    low, high = mine.estimate.interval or (1.0, 0.0)
                    inside += [name] if low <= theirs.estimate.mean <= high else []
            if apart:
                within = f" Inside our 95 % interval: {', '.join(inside)}." if inside else ""
                name = _called(row)
                source = other.block.removeprefix("Published: ")
                lines.append(
                    f"{name} minus published {other.label}{other.marks} ({source}): "
                    f"{', '.join(apart)}.{within}"
                )
    return lines


def _setting(entry: Entry) -> tuple[str, ...]:
    return (
        entry.source,
        entry.task,
        entry.dataset,
        entry.protocol,
        entry.engine,
        entry.metric,
        str(entry.toy),
    )


def footnotes(rows: Sequence[Row], spec: Spec) -> tuple[list[Row], list[tuple[str, str]]]:
    """Footnote symbols: beside the method what holds for all its numbers, beside the number the
    rest.
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
        marked.append(
            replace(
                row, cells=tuple(cells), marks=" ".join(s for s in symbols.values() if s in common)
            )
        )
    return marked, [(symbol, f"{reason}.") for reason, symbol in symbols.items()]


def _symbols(cell: Cell, spec: Spec, symbols: dict[str, str]) -> list[str]:
    if cell.entry is None or cell.estimate is None:
        return []
    entry, reasons = cell.entry, list(cell.entry.reasons)
    for task, pattern in spec.expects:
        if (
            entry.source == "ours"
            and not entry.toy
            and entry.task == task
            and not fnmatchcase(entry.protocol, pattern)
        ):
            reasons.append(f"protocol {entry.protocol}, the table's is {pattern}")
    for reason in reasons:
        place = len(symbols)
        symbols.setdefault(reason, SYMBOLS[place % len(SYMBOLS)] * (1 + place // len(SYMBOLS)))
    return [symbols[reason] for reason in reasons]


def _competes(row: Row, cell: Cell, real: bool) -> bool:
    if cell.estimate is None or cell.entry is None:
        return False
    return row.ours or (real and not cell.entry.reasons)
