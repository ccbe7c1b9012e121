"""The matrix of a suite: one cell for each pretraining, and for each task x checkpoint x seed, with its command."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harl_bench.core.manifest import sha256
from harl_bench.core.results import IDENTITY, RESULT, scan
from harl_bench.report.collect import plain
from harl_bench.suite.config import RANDOM, Pretraining, Suite, Task

LAST, DONE = "last.pth", "done.json"  # of a pretraining
FAILED = "failed"  # folder of the cells that failed before they had a run folder
State = Literal["new", "unfinished", "finished"]


class Key(NamedTuple):
    """What tells the runs of a suite apart, as far as run folders say it."""

    task: str
    dataset: str
    protocol: str
    sha256: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One command.

    Attributes:
        arguments: of harl-bench.
        needs: the pretraining that makes its checkpoint.
        data: the folders it reads.
        checkpoint: as the suite calls it.
        path: of the checkpoint; None for random and for pretrainings.
    """

    task: str
    setting: str
    place: str
    checkpoint: str
    seed: int
    overrides: tuple[str, ...]
    arguments: tuple[str, ...]
    data: tuple[Path, ...]
    dataset: str = ""
    needs: str | None = None
    path: Path | None = None
    folder: Path | None = None

    @property
    def row(self) -> tuple[str, ...]:
        """What it shares with its other seeds, in words."""
        return self.task, self.place, " ".join((self.setting, *self.overrides)), self.checkpoint

    @property
    def name(self) -> str:
        """In one line, unique in the suite."""
        return "  ".join((*self.row, f"seed {self.seed}"))


class Known(NamedTuple):
    """A run folder. `overrides` is None where nothing tells them."""

    key: Key
    overrides: tuple[str, ...] | None
    folder: Path


def cells(suite: Suite, out: Path, gpus: int | None = None) -> list[Cell]:
    """Every command of the suite in its order: pretrainings, then seed by seed, so that a whole table exists early."""
    steps = {step.name: _pretraining(step, suite, out, gpus) for step in suite.pretrain}
    measured = [
        _measurement(task, checkpoint, seed, suite, out, gpus, steps.get(checkpoint))
        for seed in suite.seeds
        for task in suite.tasks
        for checkpoint in suite.checkpoints
        if task.checkpoints is None or checkpoint in task.checkpoints
    ]
    return [*steps.values(), *measured]


def _pretraining(step: Pretraining, suite: Suite, out: Path, gpus: int | None) -> Cell:
    folder = out / "pretrain" / step.name
    data = suite.data[step.data]
    masks = suite.data[step.masks] if step.masks else None
    arguments = [
        "pretrain", *step.overrides, "--recipe", step.recipe, "--data", str(data), "--seed", str(step.seed),
        "--out", str(folder), *(["--method", step.method] if step.method else []),
        *(["--masks", str(masks)] if masks else []), *_on_cpu(gpus),
    ]  # fmt: skip
    return Cell(
        "pretrain", step.recipe, step.data, step.name, step.seed, tuple(step.overrides), tuple(arguments),
        (data, masks) if masks else (data,), folder=folder,
    )  # fmt: skip


def _measurement(
    task: Task, checkpoint: str, seed: int, suite: Suite, out: Path, gpus: int | None, step: Cell | None
) -> Cell:
    made = step.folder / LAST if step and step.folder else None
    path = None if checkpoint == RANDOM else made or Path(checkpoint)
    data = suite.data[task.data]
    arguments = [task.task, str(path or RANDOM), *task.overrides, "--data", str(data)]
    if task.task == "classify":
        arguments += ["--dataset", task.dataset, "--protocol", task.setting, *_on_cpu(gpus)]
    else:
        arguments += ["--recipe", task.setting, "--engine", task.engine]
        arguments += [] if gpus is None else ["--gpus", str(gpus)]
    arguments += ["--seeds", str(seed), "--out", str(out)]
    return Cell(
        task.task, task.setting, task.data, checkpoint, seed, tuple(task.overrides), tuple(arguments), (data,),
        _dataset(task, data), checkpoint if step else None, path,
    )  # fmt: skip


def _on_cpu(gpus: int | None) -> list[str]:
    return ["--device", "cpu"] if gpus == 0 else []


def _dataset(task: Task, data: Path) -> str:
    """The name a result carries; "" for detection, whose one data set is the task's."""
    if task.task != "classify":
        return ""
    return f"folder-{data.resolve().name}" if task.dataset == "folder" else task.dataset


def known(out: Path) -> list[Known]:
    """Every run folder below `out`: finished ones by their result, the others by their run.json."""
    if not out.is_dir():
        return []
    found = []
    for path, result in scan(out)[0]:
        dataset = result.dataset if result.task == "classify" else ""
        key = Key(result.task, dataset, result.protocol, result.checkpoint.sha256, result.seed)
        argv = [str(part) for part in result.manifest.get("argv", []) if part != result.checkpoint.path]
        found.append(Known(key, tuple(part for part in argv if "=" in part and not part.startswith("-")), path.parent))
    return [*found, *_unfinished(out)]


def _unfinished(out: Path) -> Iterator[Known]:
    for name, folders, files in os.walk(out):
        if name == str(out) and FAILED in folders:
            folders.remove(FAILED)
        if IDENTITY in files:
            folders.clear()
            about = _json(Path(name) / IDENTITY)
            checkpoint = about.get("checkpoint")
            if RESULT not in files and isinstance(checkpoint, dict):
                dataset = str(about.get("dataset")) if about.get("task") == "classify" else ""
                key = Key(
                    str(about.get("task")), dataset, str(about.get("protocol")), str(checkpoint.get("sha256")),
                    int(about.get("seed", -1)),
                )  # fmt: skip
                yield Known(key, None, Path(name))


def found(cell: Cell, runs: Sequence[Known], hashes: dict[Path, str]) -> tuple[State, Path | None]:
    """How a cell stands and its folder. The commands themselves decide what is skipped: they also compare the data.

    Args:
        hashes: of checkpoints, filled here: each file is read once.
    """
    if cell.folder:
        state: State = "new"
        if (cell.folder / IDENTITY).is_file():
            state = "finished" if (cell.folder / DONE).is_file() and (cell.folder / LAST).is_file() else "unfinished"
        return state, cell.folder
    if cell.path and not cell.path.is_file():
        return "new", None
    if cell.path and cell.path not in hashes:
        hashes[cell.path] = sha256(cell.path)
    protocol = Path(cell.setting).name.removesuffix(".yaml").removesuffix(".yml")
    key = Key(cell.task, cell.dataset, protocol, hashes[cell.path] if cell.path else "", cell.seed)
    same = [run for run in runs if run.key == key]
    for run in same:
        if run.overrides is not None and set(run.overrides) == set(cell.overrides):
            return "finished", run.folder
    started = [run.folder for run in same if run.overrides is None]
    return ("unfinished", max(started, key=os.path.getmtime)) if started else ("new", None)


def table(planned: Sequence[tuple[Cell, State]], seeds: Sequence[int]) -> list[str]:
    """The matrix as lines of text: a row per pretraining and per task and checkpoint, a column per seed."""
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for cell, state in planned:
        rows.setdefault(cell.row, {})[cell.seed] = state
    columns = list(dict.fromkeys([*seeds, *(cell.seed for cell, _ in planned)]))
    lines = [("task", "data", "setting", "checkpoint", *(f"seed {seed}" for seed in columns))]
    lines += [(*map(plain, row), *(states.get(seed, "-") for seed in columns)) for row, states in rows.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{text:<{n}}" for text, n in zip(line, widths, strict=True)).rstrip() for line in lines]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
