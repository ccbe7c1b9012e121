"""The sentence that opens a report: the clearest difference to the baseline, or that none is."""

from collections.abc import Sequence

from harl_bench.report.assembly import heading
from harl_bench.report.collect import Entry
from harl_bench.report.grid import Cell, Table
from harl_bench.report.marks import names
from harl_bench.report.statistics import Comparison

UPPER = "supervised"  # trained with labels: an upper line, named only where no other row differs


def finding(tables: Sequence[Table]) -> str:
    """Return the best row that differs from its baseline with p < 0.05, by how much, and n.

    Where none does it says so. Returns "" where no two rows of ours stand in one headline column.
    """
    columns = [
        (
            column.metric,
            [
                (name, row.cells[i])
                for name, row in zip(names(table.rows), table.rows, strict=True)
                if row.ours and row.cells[i].estimate
            ],
        )
        for table in [table for table in tables if not table.toy] or tables
        for i, column in enumerate(table.columns)
        if column.headline
    ]
    if all(len(cells) < 2 for _, cells in columns):
        return ""
    tested = [
        (cell.test, cell.entry, cell, metric, name)
        for metric, cells in columns
        for name, cell in cells
        if cell.test and cell.entry
    ]
    if not tested:
        return "Nothing can be told apart: no difference could be tested; the notes say why."
    clear = [item for item in tested if item[2].stars]
    if not clear:
        closest = min(tested, key=lambda item: item[0].p)
        baselines = ", ".join(dict.fromkeys(item[2].baseline for item in tested))
        return f"Nothing can be told apart from {baselines}. The smallest p: {_sentence(*closest)}"
    unlabelled = [item for item in clear if item[1].method.lower() != UPPER]
    return _sentence(*max(unlabelled or clear, key=lambda item: item[0].difference))


def _sentence(test: Comparison, entry: Entry, cell: Cell, metric: str, name: str) -> str:
    mean, seeds = entry.scores[metric].mean, entry.scores[metric].n
    side = "above" if test.difference > 0 else "below"
    low, high = test.interval
    one = test.kind in ("McNemar", "permutation", "bootstrap")
    count = f"{entry.runs[0][1].n_test:,} test images" if one else f"{seeds} seeds"
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.2g}"
    where = f"{heading(metric)} on {entry.dataset} ({entry.protocol})"
    return (
        f"{name} is {abs(test.difference):.1f} points {side} {cell.baseline} in {where}: "
        f"{mean:.1f} against {mean - test.difference:.1f} (95 % interval of the difference "
        f"{low:.1f} to {high:.1f}; {test.kind}, {p}, n = {count})."
    )
