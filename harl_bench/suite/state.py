"""How the commands of a suite stand, by the run folders below --out.

The commands themselves decide what is skipped, since they also compare the data. `finished.py`
remembers what they said.
"""

import functools
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harl_bench.core import manifest
from harl_bench.core.results import IDENTITY, RESULT, Result, scan, slug, walk
from harl_bench.suite.command import Command

FAILED = "failed"  # folder of the commands that failed before they had a run folder
PATHS = ("--data", "--out", "--recipe", "--protocol")  # a path may hold "=", as an override does
# Options that decide a result, which no suite gives.
DECIDING = ("--net", "--eval-only", "--max-iter", "--lr", "--batch", "--scale-lr", "--amp")
State = Literal["new", "unfinished", "finished"]


class RunFolder(NamedTuple):
    """A run folder, as its files tell. Of an unfinished one the settings are not known.

    Attributes:
        sha256: of the checkpoint that was measured, `source` is its path.
        overrides: of a finished run, with options that decide its result, too; None tells an
            unfinished one.
        data: the folder that its command named.
    """

    folder: Path
    task: str
    dataset: str
    protocol: str
    sha256: str
    seed: int
    overrides: tuple[str, ...] | None = None
    source: str = ""
    wall_s: float | None = None
    engine: str = ""
    data: str = ""


def known(out: Path) -> list[RunFolder]:
    """Return every run folder below `out`, by its result or, unfinished, by its run.json."""
    if not out.is_dir():
        return []
    return [*(_finished(path.parent, result) for path, result in scan(out)[0]), *_unfinished(out)]


def _finished(folder: Path, result: Result) -> RunFolder:
    argv = [str(word) for word in result.manifest.get("argv", []) if word != result.checkpoint.path]
    return RunFolder(
        folder,
        result.task,
        result.dataset if result.task == "classify" else "",
        result.protocol,
        result.checkpoint.sha256,
        result.seed,
        tuple(
            word
            for before, word in itertools.pairwise(argv)
            if word.partition("=")[0] in DECIDING
            or ("=" in word and not word.startswith("-") and before not in PATHS)
        ),
        result.checkpoint.path,
        result.wall_s,
        result.engine,
        argv[argv.index("--data") + 1] if "--data" in argv[:-1] else "",
    )


def _unfinished(out: Path) -> list[RunFolder]:
    runs = []
    for name, folders, files in walk(out):
        if IDENTITY not in files:
            continue
        folders.clear()
        about = read_json(Path(name) / IDENTITY)
        checkpoint = about.get("checkpoint")
        if RESULT not in files and isinstance(checkpoint, dict):
            task, dataset, protocol = (str(about.get(k)) for k in ("task", "dataset", "protocol"))
            dataset = dataset if task == "classify" else ""
            sha256, seed = str(checkpoint.get("sha256")), int(about.get("seed", -1))
            source = str(checkpoint.get("path", ""))
            runs.append(RunFolder(Path(name), task, dataset, protocol, sha256, seed, source=source))
    return runs


def find(command: Command, runs: Sequence[RunFolder]) -> tuple[State, Path | None]:
    """Return how a command stands, and its folder if there is one."""
    if command.folder:
        present = [path for path in command.outputs if path.is_file()]
        if len(present) == len(command.outputs) and _as_asked(command):
            return "finished", command.folder
        started = present or (command.folder / IDENTITY).is_file()
        return "unfinished" if started else "new", command.folder
    folders = matching(command, runs)
    for run in folders:
        if run.overrides is not None:
            return "finished", run.folder
    if not folders:
        return "new", None
    return "unfinished", max((run.folder for run in folders), key=os.path.getmtime)


def matching(command: Command, runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the runs that may be a measurement's: all unfinished ones, others by settings."""
    if command.folder:
        return []
    if command.task == "masks":
        scores = [run for run in runs if run.task == "masks" and run.seed == command.seed]
        return [
            run for run in scores if run.overrides is not None and run.source == str(command.path)
        ]
    if command.path and not command.path.is_file():
        return []
    key = command.task, command.dataset, command.protocol, checkpoint_sha256(command), command.seed
    same = [
        run
        for run in runs
        if key == (run.task, run.dataset, run.protocol, run.sha256, run.seed)
        and (command.path or run.source == command.checkpoint)  # random weights go by name
    ]
    return [run for run in same if run.overrides is None or _has_settings(run, command)]


def _has_settings(run: RunFolder, command: Command) -> bool:
    data = not run.data or Path(run.data).resolve() in {folder.resolve() for folder in command.data}
    engine = run.engine in (command.engine or run.engine, "")
    return data and engine and set(run.overrides or ()) == set(command.overrides)


def near(command: Command, out: Path) -> list[RunFolder]:
    """Return the runs that lie where core/runs.py puts a measurement's."""
    if command.folder or (command.task != "masks" and command.path and not command.path.is_file()):
        return []
    digest = "*" if command.task == "masks" else f"*-{checkpoint_sha256(command)[:8] or 'none'}"
    folders = out.glob(f"{slug(command.task)}/*/{slug(command.protocol)}/{digest}")
    return [run for folder in folders for run in known(folder)]


def checkpoint_sha256(command: Command) -> str:
    """Return the digest of the file that a command measures, "" for random weights."""
    if command.path is None:
        return ""
    about = command.path.stat()
    return _sha256(command.path, about.st_size, about.st_mtime_ns)


@functools.cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return manifest.sha256(path)


def _as_asked(command: Command) -> bool:
    """Return whether a pretraining, or a fit of masks, had these settings; true of others."""
    if command.task == "pretrain":
        from pretrain.recipe import settings

        config = read_json(command.outputs[0].with_name(IDENTITY)).get("config")
        now = command.settings().model_copy(update={"seed": command.seed})
        return not config or settings(config) == settings(now.model_dump())
    if command.task != "masks fit":
        return True
    from harl_bench.masks.fit_run import parameters

    about = read_json(command.outputs[1])
    expected = parameters(command.setting, command.overrides).model_dump(mode="json")
    return (about.get("parameters"), about.get("seed")) == (expected, command.seed)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds; {} where it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
