"""Where a number comes from: what the page shows when a cell is clicked."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.core.progress import duration
from harl_bench.report.assembly import heading
from harl_bench.report.collect import Entry, plain

ONE = "one run"
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


def provenance(entry: Entry, place: int, root: Path) -> Provenance:
    """Collect the facts of one entry of ours; `place` numbers it within the page."""
    first = entry.runs[0][1]
    manifest = first.manifest
    seeds: list[tuple[str, ...]] = [
        (
            str(r.seed),
            " · ".join(
                f"{heading(plain(m))} {v:.2f}"
                for m, v in list(r.metrics.items())[:3]
                if v is not None
            ),
            plain(r.run_id),
            plain(r.started).replace("T", " ").replace("+00:00", " UTC"),
            duration(r.wall_s),
            f"{r.peak_memory_mb:,.0f} MB",
            plain(path.parent.relative_to(root) if path.is_relative_to(root) else path.parent),
        )
        for path, r in entry.runs
    ]
    facts = [
        ("Command", _command(manifest.get("argv"))),
        ("Protocol", f"{entry.protocol}, engine {entry.engine}"),
        ("Metric", f"AP by {entry.metric}" if entry.metric else ""),
        (
            "Departures",
            "; ".join(dict.fromkeys(plain(d) for _, r in entry.runs for d in r.departures))
            or "none",
        ),
        ("Data", f"{entry.dataset}, {first.n_test:,} test images" + _hash(first.data_fingerprint)),
        (
            "Checkpoint",
            f"{plain(first.checkpoint.path)} ({plain(first.checkpoint.format)}, "
            f"{plain(first.checkpoint.net)})",
        ),
        ("Method", entry.method or "not stated by the file"),
        ("SHA-256", entry.sha256 or "none: another random draw for each seed"),
        ("Code", _code(manifest)),
        ("Versions", _versions(manifest)),
        ("Hardware", _hardware(manifest)),
    ]
    return Provenance(
        id=f"p{place}",
        title=" · ".join(
            dict.fromkeys(filter(None, (entry.title, entry.task, entry.dataset, entry.protocol)))
        ),
        scores=[
            (
                heading(metric),
                f"{e.mean:.2f}",
                ONE if e.sd is None else f"{e.sd:.2f}",
                f"{e.interval[0]:.2f} to {e.interval[1]:.2f}"
                if e.interval
                else "none below 3 seeds",
                e.n,
            )
            for metric, e in entry.scores.items()
        ],
        seeds=seeds,
        facts=[(name, text) for name, text in facts if text],
        notes=[*entry.reasons, *entry.warnings],
        config="\n".join(_lines(first.config)),
        manifest="\n".join(_lines({k: v for k, v in manifest.items() if k not in LISTED})),
    )


def _command(argv: Any) -> str:
    return plain(shlex.join(map(str, argv))) if isinstance(argv, list) else ""


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
    named = packages if isinstance(packages, Mapping) else {}
    python = [f"python {plain(manifest['python'])}"] if "python" in manifest else []
    return ", ".join([*python, *(f"{plain(k)} {plain(v)}" for k, v in named.items())])


def _hardware(manifest: Mapping[str, Any]) -> str:
    gpus = manifest.get("gpus")
    names = [plain(g) for g in gpus] if isinstance(gpus, list) else []
    cpus = [f"{plain(manifest['cpu_count'])} CPU cores"] if "cpu_count" in manifest else []
    return ", ".join(
        [*names, *cpus, *([plain(manifest["platform"])] if "platform" in manifest else [])]
    )


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`SOLVER.BASE_LR: 0.02`, one setting a line."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield plain(f"{prefix}{key}: {json.dumps(value, ensure_ascii=False, default=str)}")
