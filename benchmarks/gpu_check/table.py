"""A report as lines: one a part while it runs, and the table with ratios at the end."""

from collections.abc import Mapping
from typing import Any

from benchmarks.gpu_check.parts import Part

Outcome = Mapping[str, Any]
COLUMNS = {"images_per_s": "images/s", "ms": "ms", "peak_gib": "GiB"}


def line(name: str, outcome: Outcome) -> str:
    """Return what came of a part."""
    for state in ("failed", "skipped"):
        if state in outcome:
            return f"{name}: {state}, {outcome[state]}"
    numbers = [f"{outcome[key]:,.1f} {unit}" for key, unit in COLUMNS.items() if key in outcome]
    return f"{name}: {', '.join([*numbers, *notes(outcome)])}"


def table(report: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """Return the whole report, with each part's ratio of images a second to its rivals'."""
    outcomes: Mapping[str, Outcome] = report["parts"]
    count = {state: sum(state in o for o in outcomes.values()) for state in ("failed", "skipped")}
    head = f"{len(outcomes)} parts, {count['failed']} failed, {count['skipped']} skipped"
    width = max((len(name) for name in outcomes), default=0)
    units = "".join(f"{unit:>11}" for unit in COLUMNS.values())
    rows = [f"{report['date']}: {head}, {report['seconds']:.0f} s", f"{'':{width}}{units}"]
    if report["tiny"]:
        rows[0] += "; tiny sizes on a CPU, the numbers say nothing"
    for name, outcome in outcomes.items():
        state = next((s for s in ("failed", "skipped") if s in outcome), "")
        cells = "".join(
            f"{outcome[key]:>11,.1f}" if key in outcome else " " * 11 for key in COLUMNS
        )
        words = [f"{state}: {outcome[state]}"] if state else []
        words += [] if state else ratios(name, outcomes, parts)
        rows.append(f"{name:{width}}{cells}  {'; '.join([*words, *notes(outcome)])}".rstrip())
    return "\n".join(rows)


def ratios(name: str, outcomes: Mapping[str, Outcome], parts: Mapping[str, Part]) -> list[str]:
    """Return how many times as fast as its rivals a part is."""
    words = []
    for rival, goal in parts[name].rivals.items():
        other = outcomes.get(rival, {}).get("images_per_s")
        if other:
            ratio = outcomes[name]["images_per_s"] / other
            wanted = f" (goal {goal:.2f})" if goal else ""
            words.append(f"{ratio:.2f} x {rival}{wanted}")
    return words


def notes(outcome: Outcome) -> list[str]:
    """Return a part's remark, if it has one."""
    return [outcome["note"]] if "note" in outcome else []
