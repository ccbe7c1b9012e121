"""The memory of commands that ended well: their words, settings, and the files that they read.

Only a command itself can tell that its run is finished, and it loads torch and reads its data for
that. Where nothing has changed since, it need not be asked: one process compares sizes and times of
files. Whatever differs, a touched file too, only has the command asked again.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import harl_bench
from harl_bench.core.files import write_json
from harl_bench.core.results import RESULT, walk
from harl_bench.suite.command import Command
from harl_bench.suite.state import RunFolder, matching, near, read_json

FOLDER = "finished"  # below --out, a file a command
WRITTEN = ("--out", "--save-maps")  # options that name what is written, not read
SETTINGS, ENVIRONMENT = "harl-bench.yaml", "HARL_BENCH_"  # defaults of every command


class Memory:
    """The records below a folder of runs. A data folder is gone through once for all commands."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folders: dict[Path, str] = {}
        self._begun: dict[str, dict[str, Any]] = {}

    def holds(self, command: Command, runs: Sequence[RunFolder]) -> bool:
        """Return whether a command ended well from these inputs, and its outcome is as it was."""
        record = read_json(self._path(command))
        outcome = _outcome(command, runs)
        return bool(outcome) and record == {"inputs": self._inputs(command), "made": outcome}

    def begin(self, command: Command) -> None:
        """Note the inputs of a command that is about to start."""
        self._begun[command.name] = self._inputs(command)

    def keep(self, command: Command) -> None:
        """Write down that a command which began ended well."""
        outcome = _outcome(command, near(command, self._out))
        record = {"inputs": self._begun[command.name], "made": outcome}
        write_json(self._path(command), record)

    def _inputs(self, command: Command) -> dict[str, Any]:
        """Return all that decides what a command does, as JSON values."""
        return {
            "version": harl_bench.__version__,
            "command": list(command.arguments),
            "settings": _settings(command),
            "defaults": _stamp(Path(SETTINGS)),
            "environment": {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)},
            "read": {str(path): self._state(path) for path in _read(command)},
        }

    def _path(self, command: Command) -> Path:
        return self._out / FOLDER / f"{command.file}.json"

    def _state(self, path: Path) -> Any:
        if not path.is_dir():
            return _stamp(path)
        if self._out.resolve() in path.resolve().parents:  # made by the suite, perhaps just now
            return _tree(path, self._out)
        if path not in self._folders:
            self._folders[path] = _tree(path, self._out)
        return self._folders[path]


def _outcome(command: Command, runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Return the stamps of the files that tell that a command is finished."""
    finished = (run.folder for run in matching(command, runs) if run.overrides is not None)
    return {
        str(path): _stamp(path)
        for path in command.outputs or [folder / RESULT for folder in finished]
    }


def _read(command: Command) -> Iterator[Path]:
    """Yield the files and folders that arguments name: data, checkpoint, recipe, `list=FILE`."""
    words = command.arguments
    for option, word in itertools.pairwise(words):
        for text in (word, word.partition("=")[2]):
            if text and option not in WRITTEN and os.path.exists(text):
                yield Path(text)


def _settings(command: Command) -> str:
    """Return recipe or protocol as text: a file's `_BASE_` and the defaults of keys count, too."""
    settings = command.settings()
    if settings is None:
        return ""
    text = settings.to_yaml() if hasattr(settings, "to_yaml") else settings.model_dump_json()
    return str(text)


def _stamp(path: Path) -> list[int] | None:
    """Return (bytes, time of the last change in ns); None where there is no such file."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def _tree(root: Path, out: Path) -> str:
    """Return a digest over the stamps of all files below `root`, those of the runs left out."""
    digest, own = hashlib.sha256(), os.path.realpath(out)
    for name, folders, files in walk(root):
        if os.path.realpath(name) == own:
            folders.clear()
            continue
        for file in sorted(files):
            path = os.path.join(name, file)
            digest.update(f"{path}\0{_stamp(Path(path))}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
