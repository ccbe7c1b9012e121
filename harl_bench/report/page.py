"""The HTML report: one file with tables, plots, images and provenance that needs no network."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import harl_bench
from harl_bench.core.progress import read_metrics
from harl_bench.report import latex, markdown, plots, tidy
from harl_bench.report.assembly import TASKS
from harl_bench.report.collect import DEPARTS, TOY, Entry, plain
from harl_bench.report.finding import finding
from harl_bench.report.gallery import Exhibit, Image, encoded, exhibits, files_of, image_files
from harl_bench.report.grid import READING, Row, Table
from harl_bench.report.marks import OURS
from harl_bench.report.provenance import provenance

MOST_PLOTS = 12
ACCURACIES = ("top1", "mean_per_class")
X_KEYS = ("step", "iteration", "iter", "epoch")
LOSS_KEYS = ("loss", "total_loss")
# Of a pretraining log: title, axis, the keys drawn together, and whether the axis begins at zero.
LOGS: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("Loss", "loss", ("loss", "loss_whole", "loss_foreground", "loss_background"), False),
    ("Schedules", "value", ("alpha", "lambda", "tau"), False),
    ("Learning rate", "learning rate", ("lr",), True),
    ("Spread of the features (0: collapsed)", "sd of a feature", ("feature_std",), True),
)


@dataclass(frozen=True)
class Shelf:
    """A heading with plots and images."""

    title: str
    note: str
    plots: list[str]
    images: list[Image]


@dataclass(frozen=True)
class Sheet:
    """The test images of one benchmark: a row an image, a column a checkpoint.

    The first caption explains what is seen, the others name the image alone.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Image | None]]]


def rendered(
    tables: Sequence[Table], ours: Sequence[Entry], *, root: Path, faults: Sequence[str] = ()
) -> str:
    """Return the page as text.

    `faults` are shown at its end, with those of images that could not be read.
    """
    faults = list(faults)
    illustrated = [entry for entry in ours if files_of(entry)]
    others = exhibits(root)
    images = encoded([e.files for e in others] + [files_of(e) for e in illustrated], faults)
    of_others, of_entries = images[: len(others)], images[len(others) :]
    colors = _palette(ours)
    peers = [table for table in tables if table.name.startswith("peers-")]
    environment = Environment(
        loader=PackageLoader("harl_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        version=harl_bench.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        toy=TOY,
        all_toy=all(e.toy for e in ours),
        counts=_counts(ours),
        finding=finding(tables),
        notes=_notes,
        texts=_texts,
        anchor=_Anchors(),
        reading=READING,
        tables=[table for table in tables if table not in peers],
        peers=peers,
        links={entry: f"p{i}" for i, entry in enumerate(ours)},
        scores=_score_plots(tables, colors),
        training=_training_plots(ours, colors),
        classes=_class_plots(ours, colors),
        colors={title: plots.CSS[color] for title, color in colors.items()},
        sheets=_sheets(illustrated, of_entries),
        pretraining=[_exhibit_shelf(e, i) for e, i in zip(others, of_others, strict=True)],
        provenance=[provenance(entry, i, root) for i, entry in enumerate(ours)],
        faults=[plain(fault) for fault in faults],
    )


def _notes(table: Table) -> list[tuple[str, str]]:
    """Return the notes below a table; how a run departs is said where a click leads."""
    notes = [
        (symbol, text)
        for symbol, text in table.notes
        if text != TOY and not text.startswith(DEPARTS)
    ]
    if any(text.startswith(DEPARTS) for _, text in table.notes):
        notes.insert(0, (OURS, f"{DEPARTS}a click on the number says how."))
    return notes


def _texts(table: Table) -> list[tuple[str, str]]:
    """Return the table in the formats that a reader may copy."""
    return [
        ("LaTeX", "\n".join(latex.environment(table))),
        ("CSV", tidy.grid(table)),
        ("Markdown", markdown.grid(table)),
    ]


class _Anchors:
    """Names of the numbers, to link to: `table3-harl-voc07-12-ap50`, the same in every report."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def __call__(self, table: Table, row: Row, i: int) -> str:
        column = table.columns[i]
        words = (table.name, row.block * (not row.ours), row.label, row.detail)
        text = " ".join((*words, column.group, column.heading)).lower()
        name = first = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
        copies = count(2)
        while name in self.used:
            name = f"{first}-{next(copies)}"
        self.used.add(name)
        return name


def _counts(ours: Sequence[Entry]) -> list[tuple[int, str]]:
    numbers = (
        (sum(len(e.runs) for e in ours), "run"),
        (len({e.identity[1:5] for e in ours}), "checkpoint"),
        (len({(e.task, e.dataset, e.protocol) for e in ours}), "benchmark"),
        (len({r.seed for e in ours for _, r in e.runs}), "seed"),
    )
    return [(n, name if n == 1 else f"{name}s") for n, name in numbers]


def _palette(ours: Sequence[Entry]) -> dict[str, str]:
    """Return one color a checkpoint, by its title, in the order of the tables' rows."""
    titles = dict.fromkeys(entry.title for entry in sorted(ours, key=lambda e: e.order))
    return dict(zip(titles, cycle(plots.SERIES), strict=False))


def _score_plots(tables: Sequence[Table], colors: Mapping[str, str]) -> list[str]:
    """Return bars for the headline columns of the summary, or of every table without one.

    A table without headline columns shows its first.
    """
    figures: list[str] = []
    for table in [t for t in tables if t.name == "summary"] or tables:
        rows = [row for row in table.rows if row.ours]
        filled = [
            (i, column)
            for i, column in enumerate(table.columns)
            if column.task and any(row.cells[i].estimate for row in rows)
        ]
        headlines = [(i, column) for i, column in filled if column.headline]
        for i, column in headlines or filled[:1]:
            title = f"{column.heading}, {table.short}"
            if column.group:
                title = f"{column.group} {column.heading}"
            figures.append(plots.bars(title, rows, i, colors, _chance(rows, i, column.metric)))
    return list(filter(None, figures))[:MOST_PLOTS]


def _chance(rows: Sequence[Row], i: int, metric: str) -> float | None:
    """Return the accuracy of guessing among the classes; None of other scores."""
    entries = [row.cells[i].entry for row in rows]
    classes = {len(e.runs[0][1].per_class) for e in entries if e}
    if metric.rpartition("/")[2] not in ACCURACIES or len(classes) != 1 or classes <= {0, 1}:
        return None
    return 100 / classes.pop()


def _training_plots(ours: Sequence[Entry], colors: Mapping[str, str]) -> list[str]:
    """Return the training losses of each benchmark with logs, at most three seeds a method."""
    lines: dict[str, list[tuple[str, str, plots.Curve]]] = {}
    for entry in ours:
        title = f"{entry.task}: {entry.dataset}, {entry.protocol}"
        if (len(lines) >= MOST_PLOTS and title not in lines) or len(lines.get(title, ())) >= 24:
            continue
        for path, _ in entry.runs[:3]:
            curve = plots.points(read_metrics(path.parent / "metrics.jsonl"), LOSS_KEYS, X_KEYS)
            if len(curve[0]) > 1:
                lines.setdefault(title, []).append((entry.title, colors[entry.title], curve))
    figures = [
        plots.curves(title, losses, x="iteration", y="training loss")
        for title, losses in lines.items()
    ]
    return list(filter(None, figures))


def _class_plots(ours: Sequence[Entry], colors: Mapping[str, str]) -> list[str]:
    """Return each method's per-class difference from the first method of one benchmark.

    The first is random initialization where that was measured.
    """
    figures: list[str] = []
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in ours:
        key = entry.task, entry.dataset, entry.protocol, entry.engine
        groups.setdefault(key, []).append(entry)
    for first, *others in groups.values():
        base = per_class(first)
        for entry in others:
            own = per_class(entry)
            shared = [(plain(name), own[name] - base[name]) for name in own if name in base]
            if len(shared) > 1 and len(figures) < MOST_PLOTS:
                title = f"{entry.dataset}: {entry.title} minus {first.title}"
                figures.append(plots.differences(title, shared, colors[entry.title]))
    return list(filter(None, figures))


def per_class(entry: Entry) -> dict[str, float]:
    """Return each class's headline metric (the first that `per_class` holds), mean over seeds."""
    values: dict[str, list[float]] = {}
    for _, result in entry.runs:
        for name, metrics in result.per_class.items():
            first = next((v for v in metrics.values() if v is not None), None)
            if first is not None:
                values.setdefault(name, []).append(first)
    return {name: sum(scores) / len(scores) for name, scores in values.items()}


def _sheets(entries: Sequence[Entry], images: Sequence[Sequence[Image]]) -> list[Sheet]:
    groups: dict[str, dict[str, dict[str, Image]]] = {}
    for entry, shown in zip(entries, images, strict=True):
        seed = next(r.seed for path, r in entry.runs if image_files(path.parent))
        toy = ", toy data" if entry.toy else ""
        title = f"{TASKS.get(entry.task, entry.task)}: {entry.dataset}, {entry.protocol}{toy}"
        if shown:
            column = f"{entry.title}, seed {seed}"
            groups.setdefault(title, {})[column] = {image.name: image for image in shown}
    sheets = []
    for title, columns in groups.items():
        captions = {i.name: i.caption for column in columns.values() for i in column.values()}
        rows: list[tuple[str, list[Image | None]]] = []
        explained: set[str] = set()
        for name, caption in captions.items():
            image, _, legend = caption.partition(": ")
            text = image if legend in explained else caption
            explained.add(legend)
            rows.append((text, [column.get(name) for column in columns.values()]))
        sheets.append(Sheet(title, list(columns), rows))
    return sheets


def _exhibit_shelf(exhibit: Exhibit, images: list[Image]) -> Shelf:
    figures = []
    for title, y, keys, zero in LOGS:
        lines = []
        for key, color in zip(keys, plots.SERIES[2:], strict=False):
            curve = plots.points(exhibit.metrics, (key,), X_KEYS)
            if len(curve[0]) > 1:
                lines.append((key.replace("_", " "), color, curve))
        if lines:
            figures.append(plots.curves(title, lines, x="step", y=y, first=True, zero=zero))
    return Shelf(exhibit.title, _progress(exhibit.metrics), list(filter(None, figures)), images)


def _progress(metrics: Sequence[Mapping[str, Any]]) -> str:
    curve = plots.points(metrics, LOSS_KEYS, X_KEYS)
    if not curve[0]:
        return ""
    return f"loss {curve[1][0]:.3f} → {curve[1][-1]:.3f} at step {curve[0][-1]:,.0f}"
