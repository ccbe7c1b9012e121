"""The HTML report: one file that holds its tables, plots, images and provenance, and asks the
network for nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import harl_bench
from harl_bench.core.progress import read_metrics
from harl_bench.report import plots
from harl_bench.report.assembly import HEADLINES
from harl_bench.report.collect import TOY, Entry, plain
from harl_bench.report.gallery import Exhibit, Image, encoded, exhibits, files_of
from harl_bench.report.grid import READING, Table
from harl_bench.report.provenance import provenance

MOST_PLOTS = 12
LEGEND = " Left the ground truth (yellow), right the detections (green: right, red: wrong)."
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
    """The page as text.

    `faults` are shown at its end, with those of images that could not be read.
    """
    faults = list(faults)
    shown = [entry for entry in ours if files_of(entry)]
    others = exhibits(root)
    images = encoded([*(e.files for e in others), *(files_of(e) for e in shown)], faults)
    links = {entry: f"p{i}" for i, entry in enumerate(ours)}
    environment = Environment(
        loader=PackageLoader("harl_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html.j2").render(
        version=harl_bench.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        toy=TOY if any(e.toy for e in ours) else "",
        counts=_counts(ours),
        reading=READING,
        tables=[t for t in tables if not t.name.startswith("peers-")],
        peers=[t for t in tables if t.name.startswith("peers-")],
        links=links,
        scores=_score_plots(tables),
        training=_training_plots(ours),
        classes=_class_plots(ours),
        detections=[
            _entry_shelf(e, p) for e, p in zip(shown, images[len(others) :], strict=True) if p
        ],
        pretraining=[_exhibit_shelf(e, p) for e, p in zip(others, images, strict=False)],
        provenance=[provenance(entry, i, root) for i, entry in enumerate(ours)],
        faults=[plain(fault) for fault in faults],
    )
    return text


def _counts(ours: Sequence[Entry]) -> list[tuple[int, str]]:
    numbers = (
        (sum(len(e.runs) for e in ours), "run"),
        (len({e.identity[1:5] for e in ours}), "checkpoint"),
        (len({(e.task, e.dataset, e.protocol) for e in ours}), "benchmark"),
        (len({r.seed for e in ours for _, r in e.runs}), "seed"),
    )
    return [(n, name if n == 1 else f"{name}s") for n, name in numbers]


def _colors(names: Sequence[str]) -> dict[str, str]:
    return {
        name: plots.SERIES[i % len(plots.SERIES)] for i, name in enumerate(dict.fromkeys(names))
    }


def _score_plots(tables: Sequence[Table]) -> list[str]:
    """Bars for the headline columns: those of the summary, or the first of each table where there
    is none.
    """
    drawn: list[str] = []
    source = [t for t in tables if t.name == "summary"] or list(tables)
    for table in source:
        rows = [row for row in table.rows if row.ours]
        colors = _colors([row.label for row in rows])
        filled = [
            i
            for i, c in enumerate(table.columns)
            if c.task and any(row.cells[i].estimate for row in rows)
        ]
        places = [i for i in filled if table.columns[i].metric in HEADLINES] or filled[:1]
        for place in places[: MOST_PLOTS - len(drawn)]:
            column = table.columns[place]
            title = (
                f"{column.group} {column.heading}".strip()
                if column.group
                else f"{column.heading}, {table.short}"
            )
            drawn.append(plots.bars(title, rows, place, colors))
    return drawn


def _training_plots(ours: Sequence[Entry]) -> list[str]:
    """Training loss of every benchmark whose runs keep a log, at most three seeds a method."""
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
        plots.curves(title, found, x="iteration", y="training loss")
        for title, found in lines.items()
    ]


def _class_plots(ours: Sequence[Entry]) -> list[str]:
    """Per-class difference of each method from the first (random initialisation where measured) on
    one benchmark.
    """
    drawn: list[str] = []
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in ours:
        groups.setdefault((entry.task, entry.dataset, entry.protocol, entry.engine), []).append(
            entry
        )
    for group in groups.values():
        base = per_class(group[0])
        for entry in group[1:]:
            own = per_class(entry)
            shared = [(plain(name), own[name] - base[name]) for name in own if name in base]
            if len(shared) > 1 and len(drawn) < MOST_PLOTS:
                title = f"{entry.dataset}: {entry.title} minus {group[0].title}"
                drawn.append(
                    plots.differences(title, shared, _colors([e.title for e in group])[entry.title])
                )
    return drawn


def per_class(entry: Entry) -> dict[str, float]:
    """Mean over seeds of each class's headline metric (the first that `per_class` holds)."""
    values: dict[str, list[float]] = {}
    for _, result in entry.runs:
        for name, metrics in result.per_class.items():
            first = next((v for v in metrics.values() if v is not None), None)
            if first is not None:
                values.setdefault(name, []).append(first)
    return {name: sum(found) / len(found) for name, found in values.items()}


def _entry_shelf(entry: Entry, images: list[Image]) -> Shelf:
    seed = next(r.seed for path, r in entry.runs if (path.parent / "pictures").is_dir())
    about = f"{entry.task}, {entry.dataset}, {entry.protocol}, seed {seed}."
    return Shelf(entry.title, about + (LEGEND if entry.task in ("voc", "coco") else ""), [], images)


def _exhibit_shelf(exhibit: Exhibit, images: list[Image]) -> Shelf:
    drawn = []
    for title, y, keys, zero in LOGS:
        found = [(key, plots.points(exhibit.metrics, (key,), X_KEYS)) for key in keys]
        lines = [
            (key.replace("_", " "), plots.SERIES[(i + 2) % len(plots.SERIES)], curve)
            for i, (key, curve) in enumerate(found)
            if len(curve[0]) > 1
        ]
        if lines:
            drawn.append(plots.curves(title, lines, x="step", y=y, first=True, zero=zero))
    return Shelf(exhibit.title, _progress(exhibit.metrics), drawn, images)


def _progress(metrics: Sequence[Mapping[str, Any]]) -> str:
    curve = plots.points(metrics, LOSS_KEYS, X_KEYS)
    if not curve[0]:
        return ""
    return f"loss {curve[1][0]:.3f} → {curve[1][-1]:.3f} at step {curve[0][-1]:,.0f}"
