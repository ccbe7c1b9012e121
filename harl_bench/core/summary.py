"""The lines of a dry run, and the last lines of a run: what goes into a paper, and what is next."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean, median, stdev

from harl_bench.core.progress import duration, log
from harl_bench.core.results import RESULT, Result, read_result

ORDER = ("AP50", "AP", "AP75")  # of the published tables of detection
GIB = 2**30


def summarize(results: Iterable[Result], out: Path) -> None:
    """Log each protocol's scores over its seeds, mean ± sd (n - 1), and the report's command."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset, result.protocol), []).append(result)
    for same in groups.values():
        first = same[0]
        name = first.label or first.method or first.checkpoint.name
        seeds = ", ".join(str(result.seed) for result in same)
        about = f"n = {len(same)} ({'seed' if len(same) == 1 else 'seeds'} {seeds})"
        about += f", {first.n_test:,} test images"
        toy = "; toy: says nothing about any method" if any(r.toy for r in same) else ""
        log.info("%s  %s %s  %s  %s%s", name, first.task, first.dataset, first.protocol, about, toy)
        log.info("  %s", scores(same))
        for departure in dict.fromkeys(text for result in same for text in result.departures):
            log.info("  departs: %s", departure)
    if groups:
        log.info(
            "next: harl-bench report %s --html report.html --against published", quote(str(out))
        )


def scores(results: Sequence[Result]) -> str:
    """Return the metrics of equal runs in one line, in the order of the published tables."""
    first = results[0]
    texts = []
    for name in sorted(first.metrics, key=lambda name: _place(name, first)):
        values = [result.metrics.get(name) for result in results]
        known = [value for value in values if value is not None]
        text = f"{fmean(known):.2f}" if len(known) == len(values) else "-"
        if 1 < len(known) == len(values):
            text += f" ± {stdev(known):.2f}"
        texts.append(f"{name} {text}")
    metric = f"  ({first.metric})" if first.metric and first.metric not in first.metrics else ""
    return "  ".join(texts) + metric


def show_plan(rows: Mapping[str, str], runs: Sequence[tuple[str, str]], *, each: str) -> None:
    """Print a dry run, in the same words for every command that trains or measures.

    Args:
        rows: device, memory, time, disk and others, by name.
        runs: state and folder of each.
        each: what a run does.
    """
    remaining = sum(state != "finished" for state, _ in runs)
    rest = f"{remaining} of {len(runs)}, each {each}; nothing was started (--dry-run)"
    for name, text in [*rows.items(), *runs, ("to do", rest)]:
        print(f"{name:12}{text}")


def took(finished: Iterable[Path]) -> str | None:
    """Return how long the finished ones of a plan's runs took, None if none was trained here."""
    times = [wall_s for folder in finished if (wall_s := read_result(folder / RESULT).wall_s)]
    return f"about {duration(median(times))} a run, as {len(times)} of them took" if times else None


def free_disk(out: Path) -> str:
    """Return how much disk is left for runs in `out`, which may not exist yet."""
    folder = next(f for f in (out.absolute(), *out.absolute().parents) if f.is_dir())
    return f"{shutil.disk_usage(folder).free / GIB:.1f} GiB free at {folder}"


def _place(name: str, result: Result) -> tuple[bool, int, int]:
    """Return what sorts the metrics: the set's own first, then its kinds as they come."""
    kinds = list(dict.fromkeys(other.rpartition("/")[0] for other in result.metrics))
    kind, _, last = name.rpartition("/")
    place = ORDER.index(last) if last in ORDER else len(ORDER)
    return name != result.metric, kinds.index(kind), place
