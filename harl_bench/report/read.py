"""Results read back: from a folder of runs, from packs of them, or from a tidy CSV."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

from harl_bench.core.errors import DataError
from harl_bench.core.progress import log
from harl_bench.core.results import Result, scan
from harl_bench.report import tidy
from harl_bench.report.collect import TOY, Entry, Run, distinguished, entries_of, plain
from harl_bench.report.pack import unpacked
from harl_bench.report.published import METRICS, TASKS
from harl_bench.report.statistics import Estimate
from harl_bench.report.tables import ADDED

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("method", "dataset", "protocol", "metric", "value")


def read_runs(source: Path) -> tuple[list[Run], list[DataError]]:
    """Return the finished runs of a folder and of the packs that lie in it, or of one pack.

    A run that the folder holds as well, or several packs, comes once, from the shortest path.

    Raises:
        DataError: there is no such folder, or the file is no pack.
    """
    if source.is_file():
        return unpacked(source)
    runs, faults = scan(source)
    copies: list[Run] = []
    for path in sorted(source.glob("*.zip")):
        try:
            more, others = unpacked(path)
        except DataError as error:
            more, others = [], [error]
        copies += more
        faults += others
    known = {_measurement(result) for _, result in runs}
    for path, result in sorted(copies, key=lambda run: len(run[0].parts)):
        if _measurement(result) not in known:
            known.add(_measurement(result))
            runs.append((path, result))
    return runs, faults


def _measurement(result: Result) -> tuple[str, str, str]:
    return result.run_id, result.checkpoint.name, result.started


def read_results(source: str | Path) -> pd.DataFrame:
    """Return one row for each number, with the columns of `report --csv`.

    Args:
        source: a folder of runs, a pack of them, or such a CSV, which comes back as it was.

    Raises:
        DataError: nothing there can be read.
    """
    path = Path(source)
    if path.suffix.lower() != ".csv":
        return tidy.frame([], entries_of(read_runs(path)[0]))
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False)
        for name in tidy.NUMBERS:
            frame[name] = [float(text) if text else None for text in frame[name]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError("cannot read a table of results", where=path, seen=error) from None
    frame["n"] = frame["n"].astype("Int64")
    for name, texts in frame.select_dtypes("str").items():
        escaped = texts.str.startswith(tuple(f"'{sign}" for sign in tidy.FORMULA))
        frame[name] = texts.mask(escaped, texts.str[1:])
    return frame


def read_added(path: Path) -> list[Entry]:
    """Return the rows of somebody's CSV as quoted ones.

    It has the columns of `report --csv`, or at least method, dataset, protocol, metric and value,
    one number a row; `citation` names where they are from, otherwise the file does. The published
    rows of a report's CSV are left out.

    Raises:
        DataError: the file lacks a column, a row an entry, a value is no number or above 100, or a
            number has two values.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("cannot read a table of results", where=path, seen=error) from None
    if missing := [name for name in NEEDED if name not in (rows[0] if rows else {})]:
        hint = f"one number a row, with the columns {', '.join(NEEDED)}"
        seen = f"no column {', '.join(missing)}" if rows else "no rows"
        raise DataError("not a table of results", where=path, seen=seen, next=hint)
    groups: dict[tuple[str, ...], dict[str, Estimate]] = {}
    for line, row in enumerate(rows, start=2):
        text = {key: plain((value or "").removeprefix("'")) for key, value in row.items() if key}
        if "citation" in text and text.get("source") == "published":
            continue
        if blank := [name for name in NEEDED if not text[name]]:
            what, where = f"a row without {blank[0]}", f"{path}:{line}"
            raise DataError(what, where=where, seen=",".join(text.values()), next="fill it in")
        task = text.get("task") or TASKS.get(text["dataset"], "classify")
        if not text.get("task") and task == "segment" and text["metric"].startswith("segm/"):
            task = "cityscapes"  # its instances
        metric = METRICS.get(task, {}).get(text["metric"], text["metric"])
        try:
            value = _number(text["value"])
            sd = _number(text["sd"]) if text.get("sd") else None
        except ValueError as error:
            raise DataError("not a number", where=f"{path}:{line}", seen=error) from None
        if value > 100:
            what, where = "a score above 100 percent", f"{path}:{line}"
            raise DataError(what, where=where, seen=f"{metric} {value:g}", next="give percent")
        reasons = text.get("marks", "")
        if text.get("comment") == TOY:
            reasons = " | ".join(filter(None, (reasons, TOY.rstrip("."))))
        about = (task, text["dataset"], text["protocol"], text["method"])
        weights = (text.get("checkpoint", ""), text.get("checkpoint_sha256", ""))
        source = text.get("citation") or plain(path.name)
        more = (text.get("engine", ""), text.get("settings", ""), source, reasons)
        scores = groups.setdefault((*about, *weights, *more), {})
        if metric in scores:
            seen = f"{metric} {scores[metric].mean:g} and {value:g}"
            hint = "put the mean and its sd into one row, or give each another method"
            where = f"{path}:{line}"
            raise DataError("two values for one number", where=where, seen=seen, next=hint)
        scores[metric] = Estimate((value,), quoted_sd=sd)
    values = [score.mean for scores in groups.values() for score in scores.values()]
    if 0 < max(values, default=0) <= 1:
        log.warning("%s: no score is above 1; scores are percent, are these fractions?", path)
    entries = [
        Entry(
            source="published",
            method=method,
            task=task,
            dataset=dataset,
            protocol=protocol,
            scores=scores,
            checkpoint=checkpoint,
            sha256=sha256,
            engine=engine,
            settings=tuple(filter(None, settings.split(" | "))),
            citation=citation,
            table=ADDED,
            reasons=tuple(filter(None, reasons.split(" | "))),
        )
        for (
            task,
            dataset,
            protocol,
            method,
            checkpoint,
            sha256,
            engine,
            settings,
            citation,
            reasons,
        ), scores in groups.items()
    ]
    return distinguished(entries)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
