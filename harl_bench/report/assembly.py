"""Finished tables from entries: the summary, the known ones, and one for each other task."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import zip_longest
from statistics import fmean

from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from harl_bench.report.collect import TOY, Entry, plain
from harl_bench.report.grid import Cell, Row, Table
from harl_bench.report.marks import bold, distances, footnotes, stars
from harl_bench.report.statistics import Estimate, ranks
from harl_bench.report.tables import ADDED, KNN, TABLES, TWELVE, Column, Spec

NOT_WITH_TOY = "not comparable with toy data"
KINDS = {"bbox": "box", "segm": "mask"}
HEADINGS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "mAP11": "11-point mAP",
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
    "cityscapes": "Instance segmentation",
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

KNN_RANKING = " Of the nearest neighbors, k = 20 alone counts."
AVERAGED = (
    "Mean: over the {} columns, for rows that have them all, computed here for published rows too."
)


def tables_of(
    ours: Sequence[Entry], published: Sequence[Entry] = (), baseline: str | None = None
) -> list[Table]:
    """Return the summary, every known table that a run of ours fits, and one for each other task.

    Runs on toy data have tables of their own, behind the real ones.

    Raises:
        UsageError: no run is of the baseline method or checkpoint.
    """
    names = {name for e in ours for name in e.names}
    if baseline is not None and baseline not in names:
        raise UsageError(unknown(baseline, names, "baseline"))
    baseline = baseline or ("random" if "random" in names else None)
    real, toy = ([entry for entry in ours if entry.toy == kind] for kind in (False, True))
    if not real:
        return _tables(toy, published, baseline)
    return _tables(real, published, baseline) + [
        replace(
            table,
            name=f"toy-{table.name}",
            title=f"{table.title}: toy data",
            short=f"{table.short} (toy)",
        )
        for table in _tables(toy, (), baseline)
    ]


def _tables(ours: Sequence[Entry], published: Sequence[Entry], baseline: str | None) -> list[Table]:
    shown: set[Entry] = set()
    specs: list[tuple[str, Spec, list[Entry], list[Entry]]] = []
    for name, spec in TABLES.items():
        mine = _one_recipe(spec, [entry for entry in ours if spec.takes(entry)])
        if mine and (not spec.needs or any(entry.dataset in spec.needs for entry in mine)):
            shown.update(mine)
            specs.append((name, spec, mine, [entry for entry in published if spec.quotes(entry)]))
    rest: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in ours:
        if entry not in shown:
            rest.setdefault((entry.task, entry.dataset, entry.protocol), []).append(entry)
    for key, mine in rest.items():
        specs.append(("-".join(key), _own_spec(*key, mine), mine, _quoted(*key, published)))
    tables = [_table(name, spec, mine, theirs, baseline) for name, spec, mine, theirs in specs]
    overview = summary([entry for entry in ours if entry.task != "masks"], baseline)
    return [overview, *tables] if overview else tables


def chosen(tables: Sequence[Table], patterns: Sequence[str]) -> list[Table]:
    """Return the tables whose names match a pattern.

    Raises:
        UsageError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(table.name, pattern) for table in tables):
            raise UsageError(unknown(pattern, {table.name for table in tables}, "table"))
    return [t for t in tables if any(fnmatchcase(t.name, pattern) for pattern in patterns)]


def unshown(entries: Sequence[Entry], tables: Sequence[Table]) -> str:
    """Return data set and protocol of the entries that stand in no table, with their numbers."""
    present = {e for table in tables for row in table.rows for e in row.entries}
    # masks of other data sets are shown as copies
    missing = [e for e in entries if e not in present and e.task != "masks"]
    counts = Counter(f"{e.dataset} {e.protocol}" for e in missing)
    return ", ".join(f"{name} ({n})" for name, n in counts.items())


def _one_recipe(spec: Spec, entries: list[Entry]) -> list[Entry]:
    """Return the entries of one recipe a checkpoint, so that each has one row.

    It is the one that the table's title stands for, or else what most of its rows were trained by.
    """
    used = Counter((entry.task, entry.protocol) for entry in entries)

    def suits(entry: Entry) -> tuple[bool, int, str]:
        expected = any(e == entry.task and fnmatchcase(entry.protocol, p) for e, p in spec.expects)
        return expected, used[entry.task, entry.protocol], entry.protocol

    best: dict[tuple[str, ...], Entry] = {}
    for entry in entries if spec.expects else ():
        key = entry.task, *entry.identity
        best[key] = max(best.get(key, entry), entry, key=suits)
    return [e for e in entries if best.get((e.task, *e.identity), e).protocol == e.protocol]


def summary(ours: Sequence[Entry], baseline: str | None = None) -> Table | None:
    """Return our checkpoints over all tasks, headline metrics only, and their mean rank.

    None for a single column or method. Ranks are taken among the rows that have every column: a
    mean over different tasks would compare nothing.
    """
    present = dict.fromkeys((e.task, e.dataset, e.protocol, m) for e in ours for m in e.scores)
    columns: list[Column] = []
    for task, dataset, protocol, metric in present:
        setting = protocol.removeprefix(f"{task}-").removeprefix(f"{dataset}-")
        group = f"{GROUPS.get(dataset, dataset)} {setting}"
        columns.append(Column(group, heading(metric), task, metric, dataset, _alike(protocol)))
    tasks, sets = list(dict.fromkeys(c.task for c in columns)), list(TWELVE)  # as papers print them
    columns = sorted(
        (column for column in dict.fromkeys(columns) if column.headline),
        key=lambda c: (tasks.index(c.task), sets.index(c.dataset) if c.dataset in sets else -1),
    )
    table = _table("summary", Spec("All tasks", tuple(columns)), ours, [], baseline)
    if len(columns) < 2 or len(table.rows) < 2:
        return None
    complete = [row for row in table.rows if all(cell.estimate for cell in row.cells)]
    if len(complete) < 2:
        return table
    counted = [i for i, c in enumerate(columns) if c.metric == "k20/top1" or c.metric not in KNN]
    ranked = [ranks([float(row.cells[i].value) for row in complete]) for i in counted]
    means = {row: fmean(rank[i] for rank in ranked) for i, row in enumerate(complete)}
    lowest = f"{min(means.values()):.1f}"
    rank_cells = {
        row: Cell(Estimate((mean,)), best=f"{mean:.1f}" == lowest) for row, mean in means.items()
    }
    rows = [replace(row, cells=(*row.cells, rank_cells.get(row, Cell()))) for row in table.rows]
    return replace(
        table,
        columns=(*columns, Column("", "mean rank", "", "")),
        rows=tuple(rows),
        notes=(*table.notes, ("", RANKING + KNN_RANKING * (len(counted) < len(columns)))),
    )


def heading(metric: str) -> str:
    """Return a metric's heading: `box AP50` for `bbox/AP50`."""
    kind, slash, name = metric.rpartition("/")
    name = HEADINGS.get(name, name)
    return f"{KINDS.get(kind, kind)} {name}" if slash else name


def _own_spec(task: str, dataset: str, protocol: str, entries: Sequence[Entry]) -> Spec:
    metrics = dict.fromkeys(m for e in entries for _, result in e.runs for m in result.metrics)
    columns = tuple(
        Column("", heading(m), task, m, dataset, _alike(protocol)) for m in map(plain, metrics)
    )
    return Spec(f"{TASKS.get(task, task)}: {dataset}, {protocol}", columns, f"{dataset} {protocol}")


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
    columns, remarks = spec.columns, [spec.note] if spec.note else []
    if spec.mean and any(all(cell.estimate for cell in row.cells) for row in rows):
        rows = [replace(row, cells=(*row.cells, _mean(row.cells))) for row in rows]
        columns = (*columns, Column("", "mean", "", ""))
        remarks.append(AVERAGED.format(len(spec.columns)))
    rows, tests = stars(rows, columns, baseline)
    rows, notes = footnotes(rows, columns, spec)
    rows = bold(rows, columns)
    if any(row.toy for row in rows):
        rows = [
            row if row.ours else replace(row, block=f"{row.block} ({NOT_WITH_TOY})") for row in rows
        ]
        notes.insert(0, ("", TOY))
    notes += tests
    voc = [e for row in rows for e in row.entries if e.task == "voc" and e.metric]
    kinds = dict.fromkeys((e.dataset, METRICS.get(e.metric, e.metric)) for e in voc)
    remarks += [f"AP on {dataset}: {kind}." for dataset, kind in kinds]
    remarks += distances(rows, columns)
    notes += [("", remark) for remark in remarks]
    short = spec.short or spec.title
    return Table(name, spec.title, columns, tuple(rows), tuple(notes), short)


def _rows(spec: Spec, entries: Sequence[Entry]) -> list[Row]:
    """Return one row for each identity, more where one slot has several results (two engines).

    What departs from its protocol the least is in the first row.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.identity, []).append(entry)
    rows = []
    for group in groups.values():
        ordered = sorted(group, key=lambda e: len(e.reasons))
        slots = {c.slot: [e for e in ordered if c.takes(e)] for c in spec.columns}
        for across in zip_longest(*slots.values()):
            filled = dict(zip(slots, across, strict=True))
            first = next(e for e in across if e)
            detail = first.detail
            for slot, entry in filled.items():
                if entry:
                    detail += _difference(entry, slots[slot])
            row = Row(
                block=_block(first),
                label=first.name,
                detail=" · ".join(dict.fromkeys(filter(None, detail))),
                cells=tuple(_cell(filled[column.slot], column.metric) for column in spec.columns),
                ours=first.source == "ours",
                toy=first.toy,
            )
            if row.ours or any(cell.estimate for cell in row.cells):
                rows.append(row)
    return rows


def _block(entry: Entry) -> str:
    if entry.source == "ours":
        return "Measured here"
    return f"{'Added' if entry.table == ADDED else 'Published'}: {entry.citation}"


def _difference(entry: Entry, others: Sequence[Entry]) -> list[str]:
    """Return what distinguishes an entry from the others of its slot."""
    names = ("engine", "dataset", "protocol", "metric", "contents")
    varying = [name for name in names if len({getattr(other, name) for other in others}) > 1]
    return [*(getattr(entry, name) for name in varying), *entry.settings]


def _cell(entry: Entry | None, metric: str) -> Cell:
    return Cell(entry.scores[metric], entry) if entry and metric in entry.scores else Cell()


def _mean(cells: Sequence[Cell]) -> Cell:
    """Return the mean over the cells, of each seed where all have the same; empty if one is."""
    estimates = [cell.estimate for cell in cells if cell.estimate]
    if len(estimates) < len(cells):
        return Cell()
    seeds = {estimate.seeds for estimate in estimates}
    if len(seeds) > 1:
        return Cell(Estimate((fmean(estimate.mean for estimate in estimates),)))
    by_seed = zip(*(estimate.values for estimate in estimates), strict=True)
    return Cell(Estimate(tuple(map(fmean, by_seed)), seeds.pop()))


def _alike(protocol: str) -> str:
    return protocol.replace("_", "-")
