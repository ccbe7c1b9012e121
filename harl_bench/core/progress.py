"""Progress with ETA: a rich bar on a terminal, plain lines in a log; and metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harl_bench.core.errors import BenchError
from harl_bench.core.files import replacing

console = Console(highlight=False, soft_wrap=True)
log = logging.getLogger("harl_bench")
EARLY = (0.01, 0.02, 0.05)  # a log shows early whether the ETA is bearable ...
EVERY_S = 60.0  # ... and then one line a minute
T = TypeVar("T")


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            console.print(f"warning: {text}", markup=False, style="yellow")
        else:
            console.print(text, markup=False)


def set_up_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send `log.info` and `log.warning` to the terminal (once, at the command line's start).

    Args:
        quiet: warnings alone.
        verbose: `log.debug`, too, which otherwise stands in log files alone.
    """
    log.handlers[:] = [_ConsoleHandler(logging.DEBUG if verbose else logging.INFO)]
    log.setLevel(logging.WARNING if quiet else logging.DEBUG)
    log.propagate = False


def announce(text: str, *values: object) -> None:
    """Log at once what a command is about to do: loading torch takes seconds."""
    if os.environ.get("RANK", "0") == "0":
        log.info(text, *values)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy every log line to a file as well, with its time, while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    log.addHandler(handler)
    try:
        yield
    except BenchError as error:  # the terminal shows it too; here `harl-bench ls` finds it
        handler.emit(log.makeRecord(log.name, logging.ERROR, "", 0, error.line(), (), None))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


class Tracker:
    """One stage of work. `advance(n, loss=1.2)` moves it; notes are shown beside the ETA.

    On a terminal a bar is drawn; elsewhere a plain line is printed at 1, 2, 5 % and then every
    minute.
    """

    def __init__(self, what: str, total: int, *, start: int = 0, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._start = start
        self._began = self._last = time.monotonic()
        self._early = list(EARLY)
        self._bar: Progress | None = None
        if console.is_terminal and sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[notes]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(what, total=total, completed=start, notes="")

    def __enter__(self) -> Tracker:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None:
            took = duration(time.monotonic() - self._began)
            log.info("%s: %d/%d in %s", self.what, self.done, self.total, took)

    @property
    def rate(self) -> str | None:
        """Return the units a second of this session so far, as "12.3/s"; None before the first."""
        done = self.done - self._start
        return f"{done / max(time.monotonic() - self._began, 1e-9):.1f}/s" if done else None

    def advance(self, n: int = 1, **notes: float | str | None) -> None:
        """Count `n` more units done and show the notes, numbers to four digits, without None."""
        self.done += n
        known = {
            k: f"{v:.4g}" if isinstance(v, float) else v for k, v in notes.items() if v is not None
        }
        text = "  ".join(f"{k} {v}" for k, v in known.items())
        if self._bar:
            self._bar.update(self._task, completed=self.done, notes=text)
            return
        now = time.monotonic()
        share = self.done / max(self.total, 1)
        early = bool(self._early) and share >= self._early[0]
        while self._early and share >= self._early[0]:
            self._early.pop(0)
        if (early and now - self._began > 5.0) or now - self._last >= EVERY_S:
            self._last = now
            rate = (self.done - self._start) / max(now - self._began, 1e-9)
            eta = duration((self.total - self.done) / rate) if rate > 0 else "?"
            log.info(
                "%s: %d/%d %s %s ETA %s", self.what, self.done, self.total, self.unit, text, eta
            )


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress display."""
    size = total if total is not None else len(items)  # type: ignore[arg-type]
    with Tracker(what, size) as tracker:
        for item in items:
            yield item
            tracker.advance()


class MetricsFile:
    """metrics.jsonl: one JSON object a line; on resume, lines at or after a step are dropped."""

    def __init__(self, path: Path, *, resume_step: int | None = None, key: str = "step") -> None:
        kept = "" if resume_step is None else _lines_before(path, resume_step, key)
        with replacing(path) as temporary:
            temporary.write_text(kept, encoding="utf-8")
        self._path = path

    def append(self, **values: Any) -> None:
        """Add one line; a number that is not finite is written as null (JSON has no NaN)."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(values), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a metrics.jsonl; lines cut short or damaged are left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    return rows


def _lines_before(path: Path, step: int, key: str) -> str:
    rows = (
        row for row in read_metrics(path) if not isinstance(row.get(key), int) or row[key] < step
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def duration(seconds: float) -> str:
    """`1:02:03`, `2:03` or `4.5 s`."""
    if seconds < 59.95:  # which rounds to 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
