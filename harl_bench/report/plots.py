"""Plots as SVG inside the page.

Colors are names of the page's own style, so they follow light and dark.
"""

import io
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harl_bench.report.grid import Row

# matplotlib knows no CSS: these stand for the page's colors until `_svg` puts the names in.
INK, RULE, MUTED = "#010101", "#020202", "#030303"
SERIES = tuple(f"#04040{i}" for i in range(8))
CSS = {INK: "currentColor", RULE: "var(--rule)", MUTED: "var(--muted)"} | {
    c: f"var(--s{i})" for i, c in enumerate(SERIES)
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "harl-bench",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}
POINTS = 300  # of a curve: more than the page has pixels
MOST_BARS = 24
TITLE = 46  # letters of a line
Curve = tuple[Sequence[float], Sequence[float]]


def bars(
    title: str,
    rows: Sequence[Row],
    column: int,
    colors: Mapping[str, str],
    chance: float | None = None,
) -> str:
    """Draw one bar a checkpoint for a column's number, with the 95 % interval from three seeds on.

    `colors` are by the entry's title, `chance` is the score of guessing. Returns "" where there is
    nothing to compare: a single bar, or zeros.
    """
    cells = [(row, row.cells[column]) for row in rows]
    shown = [(row, c.value, c.estimate, c.entry) for row, c in cells if c.estimate and c.entry]
    shown = shown[:MOST_BARS]
    means = [estimate.mean for _, _, estimate, _ in shown]
    if len(means) < 2 or not any(means):
        return ""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.0, 0.72 + 0.38 * len(shown)))
        axes = figure.subplots()
        series = [colors[entry.title] for *_, entry in shown]
        axes.barh(range(len(shown)), means, height=0.58, color=series, alpha=0.85)
        top = chance or 0.0
        for y, (_, value, estimate, _) in enumerate(shown):
            end = estimate.mean
            if estimate.interval:
                end = estimate.interval[1]
                axes.plot(
                    estimate.interval, (y, y), color=INK, linewidth=1.4, solid_capstyle="butt"
                )
            axes.annotate(
                value,
                (end, y),
                (4, 0),
                textcoords="offset points",
                va="center",
                annotation_clip=False,
            )
            top = max(top, end)
        axes.set_xlim(0, top * 1.15)
        _name_bars(axes, [f"{row.label}\n{row.detail}".strip() for row, *_ in shown])
        if chance is not None:
            axes.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
            below = chance, len(shown) - 0.45
            axes.annotate(
                "chance", below, (3, 0), textcoords="offset points", va="top", color=MUTED
            )
            axes.set_ylim(len(shown) - 0.1, -0.5)
        return _svg(figure, title)


def curves(
    title: str,
    lines: Sequence[tuple[str, str, Curve]],
    *,
    x: str,
    y: str,
    first: bool = False,
    zero: bool = False,
) -> str:
    """Draw lines of (name, color, points); repeated names (seeds) are in the legend once.

    Returns "" where all are zero.

    Args:
        first: draw the first line broad, so that it stays visible below the others.
        zero: begin the y axis at zero.
    """
    if not any(any(ys) for _, _, (_, ys) in lines):
        return ""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.0, 2.6))
        axes = figure.subplots()
        named: set[str] = set()
        for i, (name, color, (xs, ys)) in enumerate(lines):
            step = max(1, len(xs) // POINTS)
            axes.plot(
                xs[::step],
                ys[::step],
                color=color,
                label=None if name in named else _short(name),
                alpha=0.9,
                linewidth=3.2 if first and i == 0 and len(lines) > 1 else 1.6,
            )
            named.add(name)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if zero:
            axes.set_ylim(bottom=0)
        if len(named) > 1:
            axes.legend(loc="best", ncols=2 if len(named) > 6 else 1)
        return _svg(figure, title)


def differences(title: str, values: Sequence[tuple[str, float]], color: str) -> str:
    """Draw per-class differences, largest first; "" where there is none."""
    if not any(value for _, value in values):
        return ""
    ordered = sorted(values, key=lambda item: -item[1])
    if len(ordered) > MOST_BARS:  # the largest and the smallest
        ordered = ordered[: MOST_BARS // 2] + ordered[-MOST_BARS // 2 :]
    with rc_context(STYLE):
        figure = Figure(figsize=(4.0, 0.7 + 0.2 * len(ordered)))
        axes = figure.subplots()
        lengths = [value for _, value in ordered]
        axes.barh(range(len(ordered)), lengths, height=0.62, color=color, alpha=0.85)
        axes.axvline(0, color=INK, linewidth=0.8)
        _name_bars(axes, [name for name, _ in ordered])
        return _svg(figure, title)


def points(metrics: Iterable[Mapping[str, Any]], keys: Sequence[str], x: Sequence[str]) -> Curve:
    """Return the first of `keys` over the first of `x` that the lines of a log have."""
    xs, ys = [], []
    for line in metrics:
        across, value = _number(line, x), _number(line, keys)
        if across is not None and value is not None:
            xs.append(across)
            ys.append(value)
    return xs, ys


def _number(line: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    value = next((line[key] for key in keys if key in line), None)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    lines = ["\n".join(map(_short, name.split("\n"))) for name in names]
    axes.set_yticks(range(len(names)), lines)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _svg(figure: Figure, title: str) -> str:
    """Return the drawing alone: no XML head, no metadata with addresses, no size."""
    figure.suptitle("\n".join(wrap(title, TITLE)), x=0.01, ha="left", size=10, weight="bold")
    FigureCanvasSVG(figure)  # its letters decide the layout
    ConstrainedLayoutEngine().execute(figure)  # as the figure's own, `savefig` would draw all twice
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    head = re.sub(r' (width|height|version)="[^"]*"', "", text[: text.index(">")])
    text = f'{head} role="img" aria-label="{escape(title)}"{text[text.index(">") :]}'
    for sentinel, name in CSS.items():
        text = text.replace(sentinel, name)
    # two drawings in one page must not share the ids of their clip paths and markers
    prefix = f"p{zlib.crc32(text.encode()):08x}"
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
