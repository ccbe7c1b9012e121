"""The matrix of a suite: one cell for each pretraining, and for each task x checkpoint x seed, with its command."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harl_bench.core.manifest import sha256
from harl_bench.core.results import IDENTITY, RESULT, scan
from harl_bench.report.collect import plain
from harl_bench.suite import masks
from harl_bench.suite.cell import Cell
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


class Known(NamedTuple):
    """A run folder. `overrides` is None where nothing tells them; `source` is the path of what was measured."""

    key: Key
    overrides: tuple[str, ...] | None
    folder: Path
    source: str = ""
    wall_s: float | None = None


def cells(suite: Suite, out: Path, gpus: int | None = None) -> list[Cell]:
    """Every command of the suite in its order: masks, pretrainings, then seed by seed, so that a table exists early."""
    steps = {step.name: _pretraining(step, suite, out, gpus) for step in suite.pretrain}
    measured = [
        _measurement(task, checkpoint, seed, suite, out, gpus, steps.get(checkpoint))
        for seed in suite.seeds
        for task in suite.tasks
        for checkpoint in suite.checkpoints
        if task.checkpoints is None or checkpoint in task.checkpoints
    ]
    return [*masks.cells(suite, out), *steps.values(), *measured]


def _pretraining(step: Pretraining, suite: Suite, out: Path, gpus: int | None) -> Cell:
    folder = out / "pretrain" / step.name
    data = suite.data[step.data]
    needs: tuple[str, ...] = ()
    given = suite.data.get(step.masks or "")
    if step.masks and given is None:  # masks that the suite makes, by the fit of the first seed
        needs, given = (f"{step.masks} seed {suite.seeds[0]}",), masks.folder(out, step.masks, suite.seeds[0])
    arguments = [
        "pretrain", *step.overrides, "--recipe", step.recipe, "--data", str(data), "--seed", str(step.seed),
        "--out", str(folder), *(["--method", step.method] if step.method else []),
        *(["--masks", str(given)] if given else []), *_on_cpu(gpus),
    ]  # fmt: skip
    return Cell(
        "pretrain", step.recipe, step.data, step.name, step.seed, tuple(step.overrides), tuple(arguments),
        (data,) if needs or not given else (data, given), makes=step.name, needs=needs, folder=folder,
        marks=(folder / DONE, folder / LAST), all_gpus=True,
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
        arguments += [] if gpus != 0 else ["--gpus", "0"]  # otherwise it takes those that it sees
    arguments += ["--seeds", str(seed), "--out", str(out)]
    label = suite.labels.get(checkpoint)
    arguments += [f"--label={label}"] if label else []  # one word that begins with a dash: no override
    return Cell(
        task.task, task.setting, task.data, checkpoint, seed, tuple(task.overrides), tuple(arguments), (data,),
        _dataset(task, data), needs=(checkpoint,) if step else (), path=path, all_gpus=task.task != "classify",
        label=label,
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
        overrides = tuple(part for part in argv if "=" in part and not part.startswith("-"))
        found.append(Known(key, overrides, path.parent, result.checkpoint.path, result.wall_s))
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
        there = [path for path in cell.marks if path.is_file()]
        state: State = "finished" if len(there) == len(cell.marks) and _as_fitted(cell) else "new"
        if state == "new" and (there or (cell.folder / IDENTITY).is_file()):
            state = "unfinished"
        return state, cell.folder
    if cell.task == "masks":  # scored anew whenever the command is given
        scored = [run for run in runs if run.key.task == "masks" and run.key.seed == cell.seed]
        place = next((run.folder for run in scored if run.source == str(cell.path)), None)
        return ("finished", place) if place else ("new", None)
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


def _as_fitted(cell: Cell) -> bool:
    """Whether the file of a mask maker was fitted with these parameters; true of everything else."""
    if cell.task != "masks fit":
        return True
    from harl_bench.masks.fit_run import parameters

    about = _json(cell.marks[1])
    wanted = parameters(cell.setting, cell.overrides).model_dump(mode="json")
    return (about.get("parameters"), about.get("seed")) == (wanted, cell.seed)


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
