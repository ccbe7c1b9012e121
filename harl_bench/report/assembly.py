"""Finished tables from entries: the summary, the known ones, and one for each other task."""

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
HEADLINES = ("AP", "bbox/AP", "segm/AP", "mIoU", "top1", "foreground_iou")
KINDS = {"bbox": "box", "segm": "mask"}
HEADINGS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "foreground_iou": "foreground IoU",
    "mean_iou": "mean IoU",
    "f_beta": "F",
    "max_f": "max F",
    "s_measure": "S-measure",
    "mae": "MAE (low is best)",
}
TASKS = {
    "voc": "VOC detection",
    "coco": "COCO",
    "segment": "Semantic segmentation",
    "classify": "Classification",
    "masks": "Masks",
}
GROUPS = {"voc07+12": "VOC", "coco": "COCO", "voc12aug": "VOC12", "cityscapes": "Cityscapes"}
METRICS = {
    "11-point": "11-point interpolation, as Detectron2 scores VOC2007",
    "area": "area under the precision-recall curve, as Detectron2 scores VOC2012",
}
RANKING = (
    "Mean rank: each row's rank in every column, averaged; 1 is best. Only rows with a number in "
    "every column are ranked, and equal numbers share their mean rank."
)


def tables_of(
    ours: Sequence[Entry], published: Sequence[Entry] = (), baseline: str | None = None
) -> list[Table]:
    """Return the summary, every known table that a run of ours fits, and one for each other task.

    Raises:
        UsageError: no run is of the baseline method or checkpoint.
    """
    names = {name for e in ours for name in e.names}
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
    overview = summary(ours, baseline)
    return [overview, *tables] if overview else tables


def summary(ours: Sequence[Entry], baseline: str | None = None) -> Table | None:
    """Return our methods over all tasks, headline metrics only, and their mean rank.

    None for a single column or method. Ranks are taken among the rows that have every column: a
    mean over different tasks would compare nothing.
    """
    present = dict.fromkeys(
        (e.task, e.dataset, e.protocol, m) for e in ours for m in HEADLINES if m in e.scores
    )
    columns: list[Column] = []
    for task, dataset, protocol, metric in present:
        setting = protocol.removeprefix(f"{task}-").removeprefix(f"{dataset}-")
        group = f"{GROUPS.get(dataset, dataset)} {setting}"
        columns.append(Column(group, heading(metric), task, metric, dataset, _alike(protocol)))
    columns = list(dict.fromkeys(columns))
    table = _table("summary", Spec("All tasks", tuple(columns)), ours, [], baseline)
    if len(columns) < 2 or len(table.rows) < 2:
        return None
    complete = [row for row in table.rows if all(cell.estimate for cell in row.cells)]
    if len(complete) < 2:
        return table
    by_column = zip(*(row.cells for row in complete), strict=True)
    ranked = [ranks([float(cell.value) for cell in cells]) for cells in by_column]
    means = {row: sum(rank[i] for rank in ranked) / len(columns) for i, row in enumerate(complete)}
    lowest = f"{min(means.values()):.1f}"
    rank_cells = {
        row: Cell(Estimate((mean,)), best=f"{mean:.1f}" == lowest) for row, mean in means.items()
    }
    rows = [replace(row, cells=(*row.cells, rank_cells.get(row, Cell()))) for row in table.rows]
    return replace(
        table,
        columns=(*columns, Column("", "mean rank", "", "")),
        rows=tuple(rows),
        notes=(*table.notes, ("", RANKING)),
    )


def heading(metric: str) -> str:
    """Return a metric's heading: `box AP50` for `bbox/AP50`."""
    kind, slash, name = metric.rpartition("/")
    return f"{KINDS.get(kind, kind)} {name}" if slash else HEADINGS.get(metric, metric)


def _own_spec(task: str, dataset: str, protocol: str, entries: Sequence[Entry]) -> Spec:
    metrics = dict.fromkeys(m for e in entries for _, result in e.runs for m in result.metrics)
    columns = tuple(
        Column("", heading(m), task, m, dataset, _alike(protocol)) for m in map(plain, metrics)
    )
    return Spec(f"{TASKS.get(task, task)}: {dataset}, {protocol}", columns, dataset)


def _quoted(task: str, dataset: str, protocol: str, published: Iterable[Entry]) -> list[Entry]:
    """Return the published rows for a table of its own.

    Mask quality is compared across data sets; a footnote says so.
    """
    same, others = [], []
    for entry in published:
        if (entry.task, entry.dataset, _alike(entry.protocol)) == (task, dataset, _alike(protocol)):
            same.append(entry)
        elif entry.task == task == "masks":
            reasons = (*entry.reasons, f"measured on {entry.dataset}")
            others.append(replace(entry, dataset=dataset, protocol=protocol, reasons=reasons))
    return same + others


def _table(
    name: str, spec: Spec, mine: Sequence[Entry], theirs: Sequence[Entry], baseline: str | None
) -> Table:
    rows = _rows(spec, sorted(mine, key=lambda e: (e.toy, e.order))) + _rows(spec, theirs)
    rows, tests = stars(rows, spec.columns, baseline)
    rows, notes = footnotes(bold(rows, spec.columns), spec)
    if any(row.toy for row in rows):
        rows = [
            row if row.ours else replace(row, block=f"{row.block} ({NOT_WITH_TOY})") for row in rows
        ]
        notes.insert(0, ("", TOY))
    notes += tests
    remarks = [spec.note] if spec.note else []
    averaged = dict.fromkeys((e.dataset, e.metric) for row in rows for e in row.entries if e.metric)
    remarks += [f"AP on {dataset}: {METRICS.get(metric, metric)}." for dataset, metric in averaged]
    remarks += distances(rows, spec.columns)
    remarks += [f"{e.title}, {e.protocol}: {warning}." for e in mine for warning in e.warnings]
    notes += [("", remark) for remark in remarks]
    short = spec.short or spec.title
    return Table(name, spec.title, spec.columns, tuple(rows), tuple(notes), short)


def _rows(spec: Spec, entries: Sequence[Entry]) -> list[Row]:
    """Return one row for each identity, more where one slot has several results (two engines)."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    rows = []
    for group in groups.values():
        slots = {c.slot: [e for e in group if c.takes(e)] for c in spec.columns}
        for across in zip_longest(*slots.values()):
            filled = dict(zip(slots, across, strict=True))
            first = next(e for e in across if e)
            detail = first.detail
            for slot, entry in filled.items():
                if entry:
                    detail += _difference(entry, slots[slot])
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
    """Return what distinguishes an entry from the others of its slot."""
    names = ("engine", "dataset", "protocol", "metric")
    varying = [name for name in names if len({getattr(other, name) for other in others}) > 1]
    return [getattr(entry, name) for name in varying]


def _cell(entry: Entry | None, metric: str) -> Cell:
    return Cell(entry.scores[metric], entry) if entry and metric in entry.scores else Cell()


def _alike(protocol: str) -> str:
    return protocol.replace("_", "-")
