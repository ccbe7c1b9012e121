"""The provenance of a number, which the page shows when a cell is clicked."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.core.progress import duration
from harl_bench.core.results import Result
from harl_bench.report.assembly import METRICS, heading
from harl_bench.report.collect import Entry, plain
from harl_bench.report.statistics import INTERVAL_FROM, Estimate

ONE = "one run"
AS_JSON = json.JSONEncoder(ensure_ascii=False, default=str).encode
LISTED = ("argv", "packages", "git", "written")  # manifest keys with a line of their own


@dataclass(frozen=True)
class Provenance:
    """The facts behind one entry, as text; `seeds` has one line a run."""

    id: str
    title: str
    scores: list[tuple[str, str, str, str, int]]
    seeds: list[tuple[str, ...]]
    facts: list[tuple[str, str]]
    notes: list[str]
    config: str
    manifest: str


def provenance(entry: Entry, number: int, root: Path) -> Provenance:
    """Collect the facts of one entry of ours; `number` is its position within the page."""
    first = entry.runs[0][1]
    manifest, checkpoint = first.manifest, first.checkpoint
    title = (entry.title, entry.task, entry.dataset, entry.protocol)
    departures = dict.fromkeys(plain(d) for _, result in entry.runs for d in result.departures)
    facts = [
        ("Command", _command(manifest.get("argv"))),
        ("Protocol", f"{entry.protocol}, engine {entry.engine}"),
        ("Metric", _metric(entry.metric)),
        ("Departures", "; ".join(departures) or "none"),
        ("Data", f"{entry.dataset}, {first.n_test:,} test images" + _hash(first.data_fingerprint)),
        (
            "Checkpoint",
            f"{plain(checkpoint.path)} ({plain(checkpoint.format)}, {plain(checkpoint.net)})",
        ),
        ("Method", entry.method or "not stated by the file"),
        ("SHA-256", entry.sha256 or "none: another random draw for each seed"),
        ("Code", _code(manifest)),
        ("Versions", _versions(manifest)),
        ("Hardware", _hardware(manifest)),
    ]
    return Provenance(
        id=f"p{number}",
        title=" · ".join(dict.fromkeys(filter(None, title))),
        scores=[_score(metric, estimate) for metric, estimate in entry.scores.items()],
        seeds=[_seed(path.parent, result, root) for path, result in entry.runs],
        facts=[(name, text) for name, text in facts if text],
        notes=[*entry.reasons, *entry.warnings],
        config="\n".join(_lines(first.config)),
        manifest="\n".join(_lines({k: v for k, v in manifest.items() if k not in LISTED})),
    )


def _score(metric: str, estimate: Estimate) -> tuple[str, str, str, str, int]:
    sd = ONE if estimate.sd is None else f"{estimate.sd:.2f}"
    interval = "none from equal scores" if estimate.n >= INTERVAL_FROM else "none below 3 seeds"
    if estimate.interval:
        interval = "{:.2f} to {:.2f}".format(*estimate.interval)
    return heading(metric), f"{estimate.mean:.2f}", sd, interval, estimate.n


def _seed(folder: Path, result: Result, root: Path) -> tuple[str, ...]:
    metrics = list(result.metrics.items())[:3]
    return (
        str(result.seed),
        " · ".join(f"{heading(plain(m))} {v:.2f}" for m, v in metrics if v is not None),
        plain(result.run_id),
        plain(result.started).replace("T", " ").replace("+00:00", " UTC"),
        duration(result.wall_s),
        f"{result.peak_memory_mb:,.0f} MB",
        plain(folder.relative_to(root) if folder.is_relative_to(root) else folder),
    )


def _command(argv: Any) -> str:
    return plain(shlex.join(map(str, argv))) if isinstance(argv, list) else ""


def _metric(kind: str) -> str:
    return f"AP by {kind}" if kind in METRICS else heading(kind)


def _hash(value: str) -> str:
    return f", fingerprint {plain(value)[:16]}" if value else ""


def _code(manifest: Mapping[str, Any]) -> str:
    git = manifest.get("git")
    version = plain(manifest.get("harl_bench", ""))
    if not isinstance(git, Mapping):
        return f"harl-bench {version}" if version else ""
    state = "with local changes" if git.get("dirty") else "clean"
    return f"harl-bench {version}, commit {plain(git.get('sha', ''))[:12]}, {state}"


def _versions(manifest: Mapping[str, Any]) -> str:
    packages = manifest.get("packages")
    parts = [f"python {plain(manifest['python'])}"] if "python" in manifest else []
    if isinstance(packages, Mapping):
        parts += [f"{plain(name)} {plain(version)}" for name, version in packages.items()]
    return ", ".join(parts)


def _hardware(manifest: Mapping[str, Any]) -> str:
    gpus = manifest.get("gpus")
    parts = [plain(gpu) for gpu in gpus] if isinstance(gpus, list) else []
    if "cpu_count" in manifest:
        parts.append(f"{plain(manifest['cpu_count'])} CPU cores")
    if "platform" in manifest:
        parts.append(plain(manifest["platform"]))
    return ", ".join(parts)


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield one setting a line: `SOLVER.BASE_LR: 0.02`."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield plain(f"{prefix}{key}: {AS_JSON(value)}")
