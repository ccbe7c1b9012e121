"""What a suite remembers of a command that ended well: its words, its settings and the state of
every file it read.

Only a command itself can tell that its run is finished, and it loads torch and reads its data for
that. Where nothing
has changed since it said so, it need not be asked: one process compares sizes and times of files.
    Whatever differs, a
touched file too, only has the command asked again.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import harl_bench
from harl_bench.core.results import RESULT, write_json
from harl_bench.suite.cell import Cell
from harl_bench.suite.plan import Known, matching, near

FOLDER = "finished"  # below --out, a file a command
WRITTEN = ("--out", "--save-maps")  # options that name what is written, not read
SETTINGS, ENVIRONMENT = "harl-bench.yaml", "HARL_BENCH_"  # defaults of every command


class Memory:
    """The records below a folder of runs.

    A data folder is gone through once, however many commands read it.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folders: dict[Path, str] = {}
        self._hashes: dict[Path, str] = {}

    def inputs(self, cell: Cell) -> dict[str, Any]:
        """Return all that decides what a command does, as JSON values; to be asked before it
        starts.
        """
        return {
            "version": harl_bench.__version__,
            "command": list(cell.arguments),
            "settings": _settings(cell),
            "defaults": _stamp(Path(SETTINGS)),
            "environment": {
                key: value for key, value in os.environ.items() if key.startswith(ENVIRONMENT)
            },
            "read": {str(path): self._state(path) for path in _read(cell)},
        }

    def holds(self, cell: Cell, runs: Sequence[Known]) -> bool:
        """Return whether the command ended well from these very inputs, and what it made is as it
        left it.
        """
        try:
            record = json.loads(self._path(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        made = self._made(cell, runs)
        return bool(made) and bool(record == {"inputs": self.inputs(cell), "made": made})

    def keep(self, cell: Cell, inputs: dict[str, Any]) -> None:
        """Write down that the command ended well."""
        made = self._made(cell, [] if cell.folder else near(cell, self._out, self._hashes))
        write_json(self._path(cell), {"inputs": inputs, "made": made})

    def _path(self, cell: Cell) -> Path:
        return self._out / FOLDER / f"{cell.file}.json"

    def _made(self, cell: Cell, runs: Sequence[Known]) -> dict[str, Any]:
        runs = [] if cell.folder else matching(cell, runs, self._hashes)
        files = (
            cell.marks
            if cell.folder
            else [run.folder / RESULT for run in runs if run.overrides is not None]
        )
        return {str(path): _stamp(path) for path in files}

    def _state(self, path: Path) -> Any:
        if not path.is_dir():
            return _stamp(path)
        if (
            self._out.resolve() in path.resolve().parents
        ):  # made by the suite itself, perhaps just now
            return _tree(path, self._out)
        if path not in self._folders:
            self._folders[path] = _tree(path, self._out)
        return self._folders[path]


def _read(cell: Cell) -> Iterator[Path]:
    """Every file and folder that the arguments name: data, checkpoint, recipe, `list=FILE`."""
    words = cell.arguments
    for option, word in itertools.pairwise(words):
        for text in (word, word.partition("=")[2]):
            if text and option not in WRITTEN and os.path.exists(text):
                yield Path(text)


def _settings(cell: Cell) -> str:
    """Recipe or protocol with everything applied: a file's `_BASE_` and the defaults of keys count,
    too.
    """
    if cell.task in ("voc", "coco"):
        from harl_bench.detection.recipe import load as load_recipe

        return load_recipe(cell.setting, cell.overrides).to_yaml()
    if cell.task == "classify":
        from harl_bench.classify.protocol import load as load_protocol

        return load_protocol(cell.setting, cell.overrides)[1].model_dump_json()
    if cell.task == "pretrain":
        from pretrain.recipe import load as load_pretraining

        return load_pretraining(cell.setting, None, cell.overrides).model_dump_json()
    return ""


def _stamp(path: Path) -> list[int] | None:
    """(bytes, time of the last change in ns); None where there is no such file."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def _tree(root: Path, out: Path) -> str:
    """Digest over the stamps of all files below `root`, those of the runs left out."""
    digest, own, seen = hashlib.sha256(), os.path.realpath(out), set[str]()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        if real in seen or real == own:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for file in sorted(files):
            path = os.path.join(name, file)
            digest.update(f"{path}\0{_stamp(Path(path))}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
