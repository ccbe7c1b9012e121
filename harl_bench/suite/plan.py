"""The matrix of a suite: a command for each pretraining, and task x checkpoint x seed."""

from collections.abc import Sequence
from pathlib import Path

from harl_bench.core.errors import UsageError
from harl_bench.core.remembered import random_weights
from harl_bench.report.collect import plain
from harl_bench.suite import masks
from harl_bench.suite.command import Command, options
from harl_bench.suite.config import Pretraining, Suite, Task
from harl_bench.suite.state import State

LAST, DONE = "last.pth", "done.json"  # of a pretraining


def commands(suite: Suite, out: Path, gpus: int | None = None) -> list[Command]:
    """Return every command in order: masks, pretrainings, then seed by seed for an early table.

    Raises:
        UsageError: two of its tasks are one command.
    """
    steps = {step.name: _pretraining(step, suite, out, gpus) for step in suite.pretrain}
    measured = [
        _measurement(task, checkpoint, seed, suite, out, gpus)
        for seed in suite.seeds
        for task in suite.tasks
        for checkpoint in suite.checkpoints
        if task.checkpoints is None or checkpoint in task.checkpoints
    ]
    _check_twins(measured)
    every = [*masks.commands(suite, out), *steps.values(), *measured]
    assert len({command.file for command in every}) == len(every), "one name a command"
    return every


def _check_twins(commands: Sequence[Command]) -> None:
    """Refuse a command that two tasks ask for, and recipes whose results look the same."""
    first: dict[tuple[object, ...], Command] = {}
    for command in commands:
        settings = command.protocol, command.engine, frozenset(command.overrides), command.seed
        key = (command.task, command.dataset, command.data, command.checkpoint, *settings)
        other = first.setdefault(key, command)
        if other is command:
            continue
        if other.setting == command.setting:
            text, hint = "two tasks ask for the same command", "take one of the tasks out"
            raise UsageError(text, where="tasks", seen=command.name, next=hint)
        text, hint = "two recipes have one name", "rename one of the files"
        names = f"{other.setting} and {command.setting}"
        raise UsageError(text, where="tasks", seen=names, next=hint)


def _pretraining(step: Pretraining, suite: Suite, out: Path, gpus: int | None) -> Command:
    folder, data = out / "pretrain" / step.name, [suite.data[step.data]]
    mask_folder, needs = suite.data.get(step.masks or ""), list[str]()
    if mask_folder:
        data.append(mask_folder)
    elif step.masks:  # masks that the suite makes, by the fit of the first seed
        mask_folder = masks.folder(out, step.masks, suite.seeds[0])
        needs.append(f"{step.masks} seed {suite.seeds[0]}")
    settings = {
        "--recipe": step.recipe,
        "--data": data[0],
        "--seed": step.seed,
        "--out": folder,
        "--method": step.method or None,
        "--masks": mask_folder,
        "--device": _device(gpus),
    }
    return Command(
        "pretrain",
        step.recipe,
        step.data,
        step.name,
        step.seed,
        tuple(step.overrides),
        ("pretrain", *step.overrides, *options(settings)),
        tuple(data),
        makes=step.name,
        needs=tuple(needs),
        folder=folder,
        outputs=(folder / DONE, folder / LAST),
        gpus="all",
    )


def _measurement(
    task: Task, checkpoint: str, seed: int, suite: Suite, out: Path, gpus: int | None
) -> Command:
    pretrained = checkpoint in [step.name for step in suite.pretrain]
    path = out / "pretrain" / checkpoint / LAST if pretrained else Path(checkpoint)
    data, classified = suite.data[task.data], task.task == "classify"
    settings: dict[str, object] = {"--data": data}
    if classified:
        settings |= {"--dataset": task.dataset, "--protocol": task.setting}
        settings |= {"--device": _device(gpus)}
    else:
        settings |= {"--recipe": task.setting}
        settings |= {"--engine": None if task.task == "segment" else task.engine}
        settings |= {"--gpus": 0 if gpus == 0 else None}  # otherwise it takes those that it sees
    settings |= {"--seeds": seed, "--out": out}
    words = [task.task, str(path), *task.overrides, *options(settings)]
    if label := suite.labels.get(checkpoint):
        words.append(f"--label={label}")  # one word that begins with a dash: no override
    random = random_weights(checkpoint) is not None
    shared = not random and _is_frozen(task)
    return Command(
        task.task,
        task.setting,
        _data_name(task),
        checkpoint,
        seed,
        tuple(task.overrides),
        tuple(words),
        (data,),
        _dataset(task, data),
        needs=(checkpoint,) if pretrained else (),
        path=None if random else path,
        gpus="one" if classified else "all",
        engine=task.engine if task.engine != "auto" else "",
        shares=f"{checkpoint} {task.data} {task.dataset}" if shared else "",
    )


def _is_frozen(task: Task) -> bool:
    """Return whether the protocol uses nothing but stored features."""
    from harl_bench.classify.protocol import STORED, load

    if task.task != "classify":
        return False
    return load(task.setting, task.overrides)[1].kind in STORED


def _device(gpus: int | None) -> str | None:
    return "cpu" if gpus == 0 else None


def _data_name(task: Task) -> str:
    """Return the name of the data, and what they are read as: a folder may hold several sets."""
    from harl_bench.classify.datasets import DATASETS

    own = task.dataset == "folder" and task.data not in DATASETS
    if task.task != "classify" or own or task.dataset == task.data:
        return task.data
    return f"{task.data} as {task.dataset}"


def _dataset(task: Task, data: Path) -> str:
    """Return the name a result carries; "" where the recipe or the task says it."""
    if task.task != "classify":
        return ""
    return f"folder-{data.resolve().name}" if task.dataset == "folder" else task.dataset


def table(planned: Sequence[tuple[Command, State]], seeds: Sequence[int]) -> list[str]:
    """Return the matrix as text: a row per pretraining or measurement, a column per seed."""
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for command, state in planned:
        rows.setdefault(command.row, {})[command.seed] = state
    columns = list(dict.fromkeys([*seeds, *(command.seed for command, _ in planned)]))
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
