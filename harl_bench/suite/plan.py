"""The matrix of a suite: one cell for each pretraining, and for each task x checkpoint x seed, with
its command.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harl_bench.core.errors import UsageError
from harl_bench.core.manifest import sha256
from harl_bench.core.remembered import random_weights
from harl_bench.core.results import IDENTITY, RESULT, scan, slug
from harl_bench.report.collect import plain
from harl_bench.suite import masks
from harl_bench.suite.cell import Cell
from harl_bench.suite.config import Pretraining, Suite, Task

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


class Known(NamedTuple):
    """A run folder.

    `overrides` is None where nothing tells them; `source` is the path of what was measured.

    `engine` and `data` (the folder its command named) are "" where nothing tells them.
    """

    key: Key
    overrides: tuple[str, ...] | None
    folder: Path
    source: str = ""
    wall_s: float | None = None
    engine: str = ""
    data: str = ""


def cells(suite: Suite, out: Path, gpus: int | None = None) -> list[Cell]:
    """Every command of the suite in its order: masks, pretrainings, then seed by seed, so that a
    table exists early.

    Raises:
        UsageError: two of its tasks are one command.
    """
    steps = {step.name: _pretraining(step, suite, out, gpus) for step in suite.pretrain}
    measured = [
        _measurement(task, checkpoint, seed, suite, out, gpus, steps.get(checkpoint))
        for seed in suite.seeds
        for task in suite.tasks
        for checkpoint in suite.checkpoints
        if task.checkpoints is None or checkpoint in task.checkpoints
    ]
    every = [*masks.cells(suite, out), *steps.values(), *measured]
    _check_twins(measured)
    assert len({cell.name for cell in every}) == len({cell.file for cell in every}) == len(every), (
        "one name a command"
    )
    return every


def _check_twins(cells: Sequence[Cell]) -> None:
    """A command that two tasks ask for, and two recipes whose results nobody could tell apart."""
    seen: dict[tuple[object, ...], Cell] = {}
    for cell in cells:
        engine, overrides = cell.engine, frozenset(cell.overrides)
        key = (
            cell.task,
            cell.protocol,
            engine,
            overrides,
            cell.dataset,
            cell.data,
            cell.checkpoint,
            cell.seed,
        )
        other = seen.setdefault(key, cell)
        if other is not cell:
            same = other.setting == cell.setting
            raise UsageError(
                "two tasks ask for the same command" if same else "two recipes have one name",
                where="tasks",
                seen=cell.name if same else f"{other.setting} and {cell.setting}",
                next="take one of the tasks out" if same else "rename one of the files",
            )


def _pretraining(step: Pretraining, suite: Suite, out: Path, gpus: int | None) -> Cell:
    folder = out / "pretrain" / step.name
    data = suite.data[step.data]
    needs: tuple[str, ...] = ()
    given = suite.data.get(step.masks or "")
    if step.masks and given is None:  # masks that the suite makes, by the fit of the first seed
        needs, given = (
            (f"{step.masks} seed {suite.seeds[0]}",),
            masks.folder(out, step.masks, suite.seeds[0]),
        )
    arguments = [
        "pretrain",
        *step.overrides,
        "--recipe",
        step.recipe,
        "--data",
        str(data),
        "--seed",
        str(step.seed),
        "--out",
        str(folder),
        *(["--method", step.method] if step.method else []),
        *(["--masks", str(given)] if given else []),
        *_on_cpu(gpus),
    ]
    return Cell(
        "pretrain",
        step.recipe,
        step.data,
        step.name,
        step.seed,
        tuple(step.overrides),
        tuple(arguments),
        (data,) if needs or not given else (data, given),
        makes=step.name,
        needs=needs,
        folder=folder,
        marks=(folder / DONE, folder / LAST),
        gpus="all",
    )


def _measurement(
    task: Task,
    checkpoint: str,
    seed: int,
    suite: Suite,
    out: Path,
    gpus: int | None,
    step: Cell | None,
) -> Cell:
    made = step.folder / LAST if step and step.folder else None
    path = None if random_weights(checkpoint) else made or Path(checkpoint)
    data = suite.data[task.data]
    arguments = [task.task, str(path or checkpoint), *task.overrides, "--data", str(data)]
    if task.task == "classify":
        arguments += ["--dataset", task.dataset, "--protocol", task.setting, *_on_cpu(gpus)]
    else:
        arguments += ["--recipe", task.setting, "--engine", task.engine]
        arguments += [] if gpus != 0 else ["--gpus", "0"]  # otherwise it takes those that it sees
    arguments += ["--seeds", str(seed), "--out", str(out)]
    label = suite.labels.get(checkpoint)
    arguments += (
        [f"--label={label}"] if label else []
    )  # one word that begins with a dash: no override
    return Cell(
        task.task,
        task.setting,
        _place(task),
        checkpoint,
        seed,
        tuple(task.overrides),
        tuple(arguments),
        (data,),
        _dataset(task, data),
        needs=(checkpoint,) if step else (),
        path=path,
        gpus="one" if task.task == "classify" else "all",
        engine=task.engine if task.engine != "auto" else "",
        shares=f"{checkpoint} {task.data} {task.dataset}" if path and _is_frozen(task) else "",
        label=label,
    )


def _is_frozen(task: Task) -> bool:
    """Whether stored features are all that the protocol looks at."""
    from harl_bench.classify.protocol import load

    return task.task == "classify" and load(task.setting, task.overrides)[1].kind in (
        "linear",
        "knn",
    )


def _on_cpu(gpus: int | None) -> list[str]:
    return ["--device", "cpu"] if gpus == 0 else []


def _place(task: Task) -> str:
    """The name of the data, with what they are read as: one folder may hold several published
    sets.
    """
    from harl_bench.classify.datasets import DATASETS

    own = task.dataset == "folder" and task.data not in DATASETS
    return (
        task.data
        if task.task != "classify" or own or task.dataset == task.data
        else f"{task.data} as {task.dataset}"
    )


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
        argv = [
            str(part) for part in result.manifest.get("argv", []) if part != result.checkpoint.path
        ]
        overrides = tuple(part for part in argv if "=" in part and not part.startswith("-"))
        data = argv[argv.index("--data") + 1] if "--data" in argv[:-1] else ""
        source = result.checkpoint.path
        found.append(Known(key, overrides, path.parent, source, result.wall_s, result.engine, data))
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
                    str(about.get("task")),
                    dataset,
                    str(about.get("protocol")),
                    str(checkpoint.get("sha256")),
                    int(about.get("seed", -1)),
                )
                yield Known(key, None, Path(name), str(checkpoint.get("path", "")))


def found(cell: Cell, runs: Sequence[Known], hashes: dict[Path, str]) -> tuple[State, Path | None]:
    """How a cell stands and its folder.

    The commands themselves decide what is skipped: they also compare the data (finished.py
    remembers what they said).

    Args:
        hashes: of checkpoints, filled here: each file is read once.
    """
    if cell.folder:
        there = [path for path in cell.marks if path.is_file()]
        state: State = "finished" if len(there) == len(cell.marks) and _as_fitted(cell) else "new"
        if state == "new" and (there or (cell.folder / IDENTITY).is_file()):
            state = "unfinished"
        return state, cell.folder
    same = matching(cell, runs, hashes)
    for run in same:
        if run.overrides is not None:
            return "finished", run.folder
    started = [run.folder for run in same]
    return ("unfinished", max(started, key=os.path.getmtime)) if started else ("new", None)


def matching(cell: Cell, runs: Sequence[Known], hashes: dict[Path, str]) -> list[Known]:
    """The runs that may be this measurement's: the finished ones with its engine, data and
    overrides, all others.
    """
    if cell.task == "masks":
        scored = [run for run in runs if run.key.task == "masks" and run.key.seed == cell.seed]
        return [run for run in scored if run.overrides is not None and run.source == str(cell.path)]
    if cell.path and not cell.path.is_file():
        return []
    key = Key(cell.task, cell.dataset, cell.protocol, _sha256(cell, hashes), cell.seed)
    same = [
        run for run in runs if run.key == key and (cell.path or run.source == cell.checkpoint)
    ]  # random: by name
    return [run for run in same if run.overrides is None or _as_wanted(cell, run)]


def _as_wanted(cell: Cell, run: Known) -> bool:
    there = not run.data or any(
        Path(run.data).resolve() == folder.resolve() for folder in cell.data
    )
    return (
        there
        and run.engine in (cell.engine or run.engine, "")
        and set(run.overrides or ()) == set(cell.overrides)
    )


def near(cell: Cell, out: Path, hashes: dict[Path, str]) -> list[Known]:
    """The runs that may be this measurement's, looked for where core/results.py puts them and
    nowhere else.
    """
    if cell.task != "masks" and cell.path and not cell.path.is_file():
        return []
    digest = "*" if cell.task == "masks" else f"*-{_sha256(cell, hashes)[:8] or 'none'}"
    folders = out.glob(f"{slug(cell.task)}/*/{slug(cell.protocol)}/{digest}")
    return [run for folder in folders for run in known(folder)]


def _sha256(cell: Cell, hashes: dict[Path, str]) -> str:
    if cell.path and cell.path not in hashes:
        hashes[cell.path] = sha256(cell.path)
    return hashes[cell.path] if cell.path else ""


def _as_fitted(cell: Cell) -> bool:
    """Whether the file of a mask maker was fitted with these parameters; true of everything
    else.
    """
    if cell.task != "masks fit":
        return True
    from harl_bench.masks.fit_run import parameters

    about = _json(cell.marks[1])
    wanted = parameters(cell.setting, cell.overrides).model_dump(mode="json")
    return (about.get("parameters"), about.get("seed")) == (wanted, cell.seed)


def table(planned: Sequence[tuple[Cell, State]], seeds: Sequence[int]) -> list[str]:
    """The matrix as lines of text: a row per pretraining and per task and checkpoint, a column per
    seed.
    """
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for cell, state in planned:
        rows.setdefault(cell.row, {})[cell.seed] = state
    columns = list(dict.fromkeys([*seeds, *(cell.seed for cell, _ in planned)]))
    lines = [("task", "data", "setting", "checkpoint", *(f"seed {seed}" for seed in columns))]
    lines += [
        (*map(plain, row), *(states.get(seed, "-") for seed in columns))
        for row, states in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{text:<{n}}" for text, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
