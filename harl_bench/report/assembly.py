"""From entries to finished tables: the summary, the known ones, and one for each task that those
leave out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from harl_bench.report.collect import TOY, Entry, plain
from harl_bench.report.grid import Cell, Row, Table
from harl_bench.report.marks import bold, distances, footnotes, stars
from harl_bench.report.statistics import Estimate, ranks
from harl_bench.report.tables import TABLES, Column, Spec

NOT_WITH_TOY = "not comparable with toy data"
HEADLINES = ("AP", "bbox/AP", "segm/AP", "top1", "foreground_iou")
KINDS = {"bbox": "box", "segm": "mask"}
HEADINGS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "foreground_iou": "foreground IoU",
}
HEADINGS |= {
    "mean_iou": "mean IoU",
    "f_beta": "F",
    "max_f": "max F",
    "s_measure": "S-measure",
    "mae": "MAE (low is best)",
}
TASKS = {"voc": "VOC detection", "coco": "COCO", "classify": "Classification", "masks": "Masks"}
GROUPS = {"voc07+12": "VOC", "coco": "COCO"}
METRICS = {
    "11-point": "11-point interpolation, as Detectron2 scores VOC2007",
    "area": "area under the precision-recall curve, as Detectron2 scores VOC2012",
}
RANKING = (
    "Mean rank: 1 is best; over all columns, among the rows that have every one; ties share "
    "their rank."
)


def tables_of(
    ours: Sequence[Entry], published: Sequence[Entry] = (), baseline: str | None = None
) -> list[Table]:
    """The summary, every known table that a run of ours has a number for, then one for each other
    task.

    Raises:
        UsageError: no run is of the baseline method or checkpoint.
    """
    names = {name for e in ours for name in e.called}
    if baseline is not None and baseline not in names:
        raise UsageError(unknown(baseline, names, "baseline"))
    baseline = baseline or ("random" if "random" in names else None)
    shown: set[Entry] = set()
    specs: list[tuple[str, Spec, list[Entry], list[Entry]]] = []
    for name, spec in TABLES.items():
        if mine := [entry for entry in ours if spec.takes(entry)]:
            shown.update(mine)
            specs.append((name, spec, mine, [entry for entry in published if spec.quotes(entry)]))
    rest: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in ours:
        if entry not in shown:
            rest.setdefault((entry.task, entry.dataset, entry.protocol), []).append(entry)
    for key, mine in rest.items():
        specs.append(("-".join(key), _own_spec(*key, mine), mine, _quoted(*key, published)))
    tables = [_table(name, spec, mine, theirs, baseline) for name, spec, mine, theirs in specs]
    return ([overview] if (overview := summary(ours, baseline)) else []) + tables


def summary(ours: Sequence[Entry], baseline: str | None = None) -> Table | None:
    """Our methods over all tasks, headline metrics only, and their mean rank; None for a single
    column or method.

    Ranks are taken among the rows that have every column: a mean over different tasks would compare
    nothing.
    """
    columns = tuple(
        dict.fromkeys(
            Column(
                f"{GROUPS.get(e.dataset, e.dataset)} {e.protocol.removeprefix(f'{e.task}-')}",
                heading(m),
                e.task,
                m,
                e.dataset,
                _alike(e.protocol),
            )
            for e in ours
            for m in HEADLINES
            if m in e.scores
        )
    )
    table = _table("summary", Spec("All tasks", columns), ours, [], baseline)
    if len(columns) < 2 or len(table.rows) < 2:
        return None
    complete = [row for row in table.rows if all(cell.estimate for cell in row.cells)]
    if len(complete) < 2:
        return table
    by_column = zip(*(row.cells for row in complete), strict=True)
    ranked = [ranks([float(cell.value) for cell in cells]) for cells in by_column]
    means = {row: sum(rank[i] for rank in ranked) / len(columns) for i, row in enumerate(complete)}
    least = f"{min(means.values()):.1f}"
    rows = []
    for row in table.rows:
        mean = means.get(row)
        cell = Cell() if mean is None else Cell(Estimate((mean,)), best=f"{mean:.1f}" == least)
        rows.append(replace(row, cells=(*row.cells, cell)))
    return replace(
        table,
        columns=(*columns, Column("", "mean rank", "", "")),
        rows=tuple(rows),
        notes=(*table.notes, ("", RANKING)),
    )


def heading(metric: str) -> str:
    """`bbox/AP50` as `box AP50`."""
    kind, slash, name = metric.rpartition("/")
    return f"{KINDS.get(kind, kind)} {name}" if slash else HEADINGS.get(metric, metric)


def _own_spec(task: str, dataset: str, protocol: str, entries: Sequence[Entry]) -> Spec:
    metrics = dict.fromkeys(
        metric for entry in entries for _, result in entry.runs for metric in result.metrics
    )
    columns = tuple(
        Column("", heading(m), task, m, dataset, _alike(protocol)) for m in map(plain, metrics)
    )
    return Spec(f"{TASKS.get(task, task)}: {dataset}, {protocol}", columns, dataset)


def _quoted(task: str, dataset: str, protocol: str, published: Iterable[Entry]) -> list[Entry]:
    """Published rows for a table of its own; mask quality is compared across data sets, and says
    so.
    """
    same = [
        e
        for e in published
        if (e.task, e.dataset, _alike(e.protocol)) == (task, dataset, _alike(protocol))
    ]
    others = [e for e in published if e.task == task == "masks" and e not in same]
    return same + [
        replace(
            e, dataset=dataset, protocol=protocol, reasons=(*e.reasons, f"measured on {e.dataset}")
        )
        for e in others
    ]


def _table(
    name: str, spec: Spec, mine: Sequence[Entry], theirs: Sequence[Entry], baseline: str | None
) -> Table:
    rows = _rows(spec, sorted(mine, key=lambda e: (e.toy, e.order))) + _rows(spec, theirs)
    rows, tested = stars(rows, spec.columns, baseline)
    rows, notes = footnotes(bold(rows, spec.columns), spec)
    if any(row.toy for row in rows):
        rows = [
            row if row.ours else replace(row, block=f"{row.block} ({NOT_WITH_TOY})") for row in rows
        ]
        notes.insert(0, ("", TOY))
    notes += tested
    notes += [("", spec.note)] if spec.note else []
    named = {(e.dataset, e.metric): None for row in rows for e in row.entries if e.metric}
    notes += [("", f"AP on {dataset}: {METRICS.get(metric, metric)}.") for dataset, metric in named]
    notes += [("", line) for line in distances(rows, spec.columns)]
    notes += [("", f"{e.title}, {e.protocol}: {warning}.") for e in mine for warning in e.warnings]
    return Table(
        name, spec.title, spec.columns, tuple(rows), tuple(notes), spec.short or spec.title
    )


def _rows(spec: Spec, entries: Sequence[Entry]) -> list[Row]:
    """One row for each identity, more when it was measured twice in a slot (two engines, two
    learning rates).
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    rows = []
    for group in groups.values():
        slots = {c.slot: [e for e in group if c.takes(e)] for c in spec.columns}
        for chosen in zip_longest(*slots.values()):
            filled = dict(zip(slots, chosen, strict=True))
            first = next(e for e in chosen if e)
            detail = first.detail
            for slot, entry in filled.items():
                detail += _difference(entry, slots[slot]) if entry else []
            row = Row(
                block="Measured here" if first.source == "ours" else f"Published: {first.citation}",
                label=first.name,
                detail=" · ".join(dict.fromkeys(filter(None, detail))),
                cells=tuple(_cell(filled[column.slot], column.metric) for column in spec.columns),
                ours=first.source == "ours",
                toy=first.toy,
            )
            if row.ours or any(cell.estimate for cell in row.cells):
                rows.append(row)
    return rows


def _difference(entry: Entry, others: Sequence[Entry]) -> list[str]:
    """What tells an entry from the others of its slot."""
    about = zip(*((e.engine, e.dataset, e.protocol, e.metric) for e in others), strict=True)
    mine = (entry.engine, entry.dataset, entry.protocol, entry.metric)
    return [value for value, seen in zip(mine, about, strict=True) if len(set(seen)) > 1]


def _cell(entry: Entry | None, metric: str) -> Cell:
    return Cell(entry.scores[metric], entry) if entry and metric in entry.scores else Cell()


def _alike(protocol: str) -> str:
    return protocol.replace("_", "-")
