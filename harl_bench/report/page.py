"""The HTML report: one file with tables, plots, images and provenance that needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import harl_bench
from harl_bench.core.progress import read_metrics
from harl_bench.report import plots
from harl_bench.report.assembly import HEADLINES
from harl_bench.report.collect import TOY, Entry, plain
from harl_bench.report.finding import finding
from harl_bench.report.gallery import Exhibit, Image, encoded, exhibits, files_of
from harl_bench.report.grid import READING, Table
from harl_bench.report.provenance import provenance

MOST_PLOTS = 12
DETECTIONS = " Left the ground truth (yellow), right the detections (green: right, red: wrong)."
LEGENDS = {
    "voc": DETECTIONS,
    "coco": DETECTIONS,
    "segment": " From left to right: the image, its labels, the prediction, and the errors.",
}
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
        toy=TOY if any(e.toy for e in ours) else "",
        mixed=any(not e.toy for e in ours),
        counts=_counts(ours),
        finding=finding(tables),
        reading=READING,
        tables=[table for table in tables if table not in peers],
        peers=peers,
        links={entry: f"p{i}" for i, entry in enumerate(ours)},
        scores=_score_plots(tables),
        training=_training_plots(ours),
        classes=_class_plots(ours),
        detections=[_entry_shelf(e, i) for e, i in zip(illustrated, of_entries, strict=True) if i],
        pretraining=[_exhibit_shelf(e, i) for e, i in zip(others, of_others, strict=True)],
        provenance=[provenance(entry, i, root) for i, entry in enumerate(ours)],
        faults=[plain(fault) for fault in faults],
    )


def _counts(ours: Sequence[Entry]) -> list[tuple[int, str]]:
    numbers = (
        (sum(len(e.runs) for e in ours), "run"),
        (len({e.identity[1:5] for e in ours}), "checkpoint"),
        (len({(e.task, e.dataset, e.protocol) for e in ours}), "benchmark"),
        (len({r.seed for e in ours for _, r in e.runs}), "seed"),
    )
    return [(n, name if n == 1 else f"{name}s") for n, name in numbers]


def _colors(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(names), cycle(plots.SERIES), strict=False))


def _score_plots(tables: Sequence[Table]) -> list[str]:
    """Return bars for the headline columns of the summary, or of every table without one.

    A table without headline columns shows its first.
    """
    figures: list[str] = []
    for table in [t for t in tables if t.name == "summary"] or tables:
        rows = [row for row in table.rows if row.ours]
        colors = _colors([row.label for row in rows])
        filled = [
            (i, column)
            for i, column in enumerate(table.columns)
            if column.task and any(row.cells[i].estimate for row in rows)
        ]
        headlines = [(i, column) for i, column in filled if column.metric in HEADLINES]
        for i, column in (headlines or filled[:1])[: MOST_PLOTS - len(figures)]:
            title = f"{column.heading}, {table.short}"
            if column.group:
                title = f"{column.group} {column.heading}"
            figures.append(plots.bars(title, rows, i, colors))
    return figures


def _training_plots(ours: Sequence[Entry]) -> list[str]:
    """Return the training losses of each benchmark with logs, at most three seeds a method."""
    colors = _colors([e.title for e in ours])
    lines: dict[str, list[tuple[str, str, plots.Curve]]] = {}
    for entry in ours:
        title = f"{entry.task}: {entry.dataset}, {entry.protocol}"
        if (len(lines) >= MOST_PLOTS and title not in lines) or len(lines.get(title, ())) >= 24:
            continue
        for path, _ in entry.runs[:3]:
            curve = plots.points(read_metrics(path.parent / "metrics.jsonl"), LOSS_KEYS, X_KEYS)
            if len(curve[0]) > 1:
                lines.setdefault(title, []).append((entry.title, colors[entry.title], curve))
    return [
        plots.curves(title, losses, x="iteration", y="training loss")
        for title, losses in lines.items()
    ]


def _class_plots(ours: Sequence[Entry]) -> list[str]:
    """Return each method's per-class difference from the first method of one benchmark.

    The first is random initialisation where that was measured.
    """
    figures: list[str] = []
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in ours:
        key = entry.task, entry.dataset, entry.protocol, entry.engine
        groups.setdefault(key, []).append(entry)
    for first, *others in groups.values():
        base = per_class(first)
        colors = _colors([entry.title for entry in (first, *others)])
        for entry in others:
            own = per_class(entry)
            shared = [(plain(name), own[name] - base[name]) for name in own if name in base]
            if len(shared) > 1 and len(figures) < MOST_PLOTS:
                title = f"{entry.dataset}: {entry.title} minus {first.title}"
                figures.append(plots.differences(title, shared, colors[entry.title]))
    return figures


def per_class(entry: Entry) -> dict[str, float]:
    """Return each class's headline metric (the first that `per_class` holds), mean over seeds."""
    values: dict[str, list[float]] = {}
    for _, result in entry.runs:
        for name, metrics in result.per_class.items():
            first = next((v for v in metrics.values() if v is not None), None)
            if first is not None:
                values.setdefault(name, []).append(first)
    return {name: sum(scores) / len(scores) for name, scores in values.items()}


def _entry_shelf(entry: Entry, images: list[Image]) -> Shelf:
    seed = next(r.seed for path, r in entry.runs if (path.parent / "pictures").is_dir())
    about = f"{entry.task}, {entry.dataset}, {entry.protocol}, seed {seed}."
    return Shelf(entry.title, about + LEGENDS.get(entry.task, ""), [], images)


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
    return Shelf(exhibit.title, _progress(exhibit.metrics), figures, images)


def _progress(metrics: Sequence[Mapping[str, Any]]) -> str:
    curve = plots.points(metrics, LOSS_KEYS, X_KEYS)
    if not curve[0]:
        return ""
    return f"loss {curve[1][0]:.3f} → {curve[1][-1]:.3f} at step {curve[0][-1]:,.0f}"
