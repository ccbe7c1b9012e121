"""The state and progress of every run below a folder, for `ls`.

It reads only what every command leaves in its run folder (core/runs.py), so it can show runs of
another machine on a shared file system while they continue.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harl_bench.core.errors import PREEMPTED, DataError, PreemptedError
from harl_bench.core.progress import duration
from harl_bench.core.results import IDENTITY, RESULT, read_result, walk
from harl_bench.report.collect import plain

DONE, FAILED, METRICS, LOG, LOCK = "done.json", "failed.json", "metrics.jsonl", "log.txt", ".lock"
CONFIG = "config.yaml"
NO_SETTING = (
    "--label=",
    "--fresh",
    "--debug",
    "--verbose",
)  # words of a command that decide no result
FRESH_S = 120.0  # a log that grew this recently belongs to a live process
TAIL = 8192  # bytes of a log's end: enough for its last line
QUEUED = "queued"  # folder of the commands that wait for their turn in a suite, one file each
RESUMABLE = "give its command again to resume"
RESUMES = "stopped with its state saved, resumes with the same command"
STEPS, LOSSES = ("iteration", "step", "steps"), ("total_loss", "loss")
Word = Literal["done", "running", "queued", "stopped", "unfinished", "failed", "faulty"]


@dataclass(frozen=True)
class State:
    """One run; `about` is its progress, its scores or the cause of its failure."""

    word: Word
    folder: Path
    about: str


def states(root: Path) -> list[State]:
    """Return every run below `root`, sorted by path, without failures whose successor is done.

    Raises:
        DataError: the folder does not exist.
    """
    if not root.is_dir():
        raise DataError(
            "run folder not found",
            where=root,
            next="give the folder that --out named (default: runs)",
        )
    return _without_successors(list(_walk(root)))


def _walk(root: Path) -> Iterator[State]:
    for name, folders, files in walk(root):
        if QUEUED in folders:
            folders.remove(QUEUED)
            yield from _queued(Path(name) / QUEUED)
        if RESULT in files or IDENTITY in files:
            folders.clear()
            yield _state(Path(name), set(files))


def _without_successors(below: list[State]) -> list[State]:
    """Leave out failures whose successor is done.

    A successor is the same command, or, for a command given by hand, a run beside it with the same
    seed and settings: its data or its checkpoint were repaired.
    """
    if all(state.word != "failed" for state in below):
        return below
    done = [state.folder for state in below if state.word == "done"]
    finished = {_words(_json(folder / RESULT).get("manifest"), "argv") for folder in done}
    return [
        state
        for state in below
        if state.word != "failed" or not _succeeded(state.folder, done, finished)
    ]


def _succeeded(folder: Path, done: Sequence[Path], finished: set[tuple[str, ...]]) -> bool:
    command = _words(_json(folder / FAILED), "command")
    if command[:1] == ("pretrain",) and "--out" in command[:-1]:
        return (Path(command[command.index("--out") + 1]) / DONE).is_file()
    if command:
        return command in finished
    settings = _bytes(folder / CONFIG)
    return bool(settings) and any(
        other.parent == folder.parent
        and other.name.partition("-")[0] == folder.name.partition("-")[0]
        and _bytes(other / CONFIG) == settings
        for other in done
    )


def _words(holder: Any, key: str) -> tuple[str, ...]:
    """Return a command without the program's name and what changes no result; () without one."""
    words = holder.get(key) if isinstance(holder, Mapping) else None
    if not isinstance(words, list):
        return ()
    return tuple(word for word in map(str, words[1:]) if not word.startswith(NO_SETTING))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _queued(folder: Path) -> Iterator[State]:
    """Yield the waiting commands in their order, without those of a suite that was killed."""
    commands = [_json(path) for path in sorted(folder.glob("*.json"))]
    suite_runs = _locked(folder / LOCK)
    for command in sorted(commands, key=lambda command: _number(command, ("place",)) or 0):
        job = command.get("job")
        if not command.get("started") and (job or suite_runs):
            about = f"SLURM job {plain(job)}" if job else ""
            yield State("queued", folder / plain(command.get("cell", "")), about)


def _state(folder: Path, files: set[str]) -> State:
    if RESULT in files:
        try:
            scores = read_result(folder / RESULT).metrics
        except DataError as error:
            return State("faulty", folder, plain(error.seen or error.what))
        shown = [f"{plain(k)} {v:.1f}" for k, v in list(scores.items())[:3] if v is not None]
        return State("done", folder, "  ".join(shown) or "no score is defined")
    if DONE in files:
        return State("done", folder, _progress(_json(folder / DONE), {}))
    # a kill can cut the very last line
    lines = (_parsed(line) for line in _lines_from_end(folder / METRICS))
    line = next(filter(None, lines), {})
    progress = _progress(line, _json(folder / IDENTITY).get("config"))
    if _alive(folder, files):
        return State("running", folder, progress or "started")
    reached = progress.partition("  ETA")[0]
    message = next(_lines_from_end(folder / LOG), "")
    # a later try has a newer log
    failed = FAILED in files and not _newer(folder / LOG, folder / FAILED)
    cause = _json(folder / FAILED) if failed else {}
    preempted = not failed and f"error[{PreemptedError.kind}]" in message
    if cause.get("exit_code") == PREEMPTED or preempted:
        return State("stopped", folder, "  ".join(filter(None, (reached, RESUMES))))
    if failed:
        log = f"  log: {plain(cause['log'])}" if cause.get("log") else ""
        return State("failed", folder, f"{plain(cause.get('error', 'no cause is recorded'))}{log}")
    if " ERROR " in message or "error[" in message:
        return State("failed", folder, f"{plain(message)}  log: {folder / LOG}")
    return State("unfinished", folder, "  ".join(filter(None, (reached, RESUMABLE))))


def _progress(line: Mapping[str, Any], config: Any) -> str:
    """Return `step 60  loss 3.21  12 %  ETA 5:58:12`, as far as the log's last line has them."""
    step, loss, eta = (_number(line, keys) for keys in (STEPS, LOSSES, ("eta_seconds",)))
    parts = [] if step is None else [f"step {step:,.0f}"]
    if loss is not None:
        parts.append(f"loss {loss:.4g}")
    epoch, rate = _number(line, ("epoch",)), _number(line, ("pictures_per_s",))
    epochs, batch = _number(config, ("epochs",)), _number(config, ("batch_size",))
    if epoch and epochs:
        parts.append(f"{100 * epoch / epochs:.0f} %")
        if eta is None and step and rate and batch:
            eta = (epochs / epoch - 1) * step * batch / rate
    if eta:
        parts.append(f"ETA {duration(max(eta, 0.0))}")
    return "  ".join(parts)


def _alive(folder: Path, files: set[str]) -> bool:
    """Return whether a process holds the run's lock, or its log grew just now."""
    if LOCK in files and _locked(folder / LOCK):
        return True
    times = [os.path.getmtime(folder / name) for name in (METRICS, LOG) if name in files]
    return LOCK not in files and bool(times) and time.time() - max(times) < FRESH_S


def _newer(path: Path, other: Path) -> bool:
    return path.is_file() and os.path.getmtime(path) > os.path.getmtime(other)


def _locked(path: Path) -> bool:
    """Return whether a process holds this lock."""
    try:
        with open(path) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _lines_from_end(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return
    yield from filter(str.strip, reversed(lines))


def _json(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(values: Any, keys: Sequence[str]) -> float | None:
    """Return the first of `keys` that holds a number."""
    for key in keys if isinstance(values, Mapping) else ():
        value = values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None
