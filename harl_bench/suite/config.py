"""A suite file, read strictly: names, recipes and overrides are checked before anything starts."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harl_bench.core.config import Config, YamlFile, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import lookup, unknown
from harl_bench.core.remembered import random_weights

SUITES = Path(__file__).parent / "suites"
RANDOM = "random"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"  # becomes a folder


class Fitting(Config):
    """A mask maker that is trained on `data` and its `masks`, both names of the suite's data."""

    name: str = Field(pattern=NAME)
    method: Literal["drfi", "deep"]
    data: str
    masks: str | None = None
    checkpoint: str | None = None
    overrides: list[str] = []


class Masks(Config):
    """Masks of `data`, by the fitting `model`, and scored where `truth` names data of the suite."""

    name: str = Field(pattern=NAME)
    method: Literal["drfi-lite", "ellipse", "drfi", "deep"] = "drfi-lite"
    data: str
    model: str | None = None
    threshold: str | None = None
    truth: str | None = None
    overrides: list[str] = []


class Pretraining(Config):
    """A pretraining whose last.pth is measured. `masks` names data or masks of the suite."""

    name: str = Field(pattern=NAME)
    recipe: str
    data: str
    method: str | None = None
    masks: str | None = None
    seed: int = Field(default=0, ge=0)
    overrides: list[str] = []


class Task(Config):
    """A measurement: `recipe`, or `protocol` and `dataset` for classify.

    `engine` is that of detection. `checkpoints` names those that are measured; None: all.
    """

    task: Literal["voc", "coco", "cityscapes", "segment", "classify"]
    data: str
    recipe: str | None = None
    engine: Literal["auto", "torchvision", "detectron2"] = "auto"
    protocol: str | None = None
    dataset: str = "folder"
    overrides: list[str] = []
    checkpoints: list[str] | None = None

    @property
    def setting(self) -> str:
        """The recipe or the protocol."""
        return (self.protocol if self.task == "classify" else self.recipe) or ""


class Named(Config):
    """A checkpoint and what its rows of the report are called."""

    path: str
    name: str = Field(min_length=1)


class Outputs(Config):
    """Files of the report, relative to --out; the arguments of `harl-bench report`."""

    html: Path | None = None
    md: Path | None = None
    tex: Path | None = None
    csv: Path | None = None
    against: Literal["published"] | None = None
    baseline: str | None = None


class Suite(Config):
    """Checkpoints x tasks x seeds.

    Attributes:
        data: folders by name.
        prepare: the command that makes the data, shown when they are missing.
        fit, masks: mask makers that are trained, and masks that are made and scored.
        checkpoints: files, names of pretrainings, or random weights ("random",
            "random-resnet18-grid14"); in the file also `{path: FILE, name: ROW}`.
        labels: the names of such rows, by checkpoint.
    """

    data: dict[str, Path]
    prepare: str = ""
    fit: list[Fitting] = []
    masks: list[Masks] = []
    pretrain: list[Pretraining] = []
    checkpoints: list[str] = []
    labels: dict[str, str] = {}
    tasks: list[Task] = []
    seeds: list[int] = Field(default=[0], min_length=1)
    report: Outputs = Outputs()


def names() -> list[str]:
    """Return the names of the shipped suites."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a shipped suite by name, or a YAML file, with overrides such as `seeds=[0]`.

    Raises:
        UsageError: an unknown key, name, recipe or override, with file and line.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not name.endswith((".yaml", ".yml")) and name not in names():
        raise UsageError(
            unknown(name, names(), "suite"), next="give one of these or the path of a .yaml file"
        )
    values = read_yaml(path)
    changes = parse_overrides(overrides)
    named, lines = _named(merged(values, changes), values), values.lines
    suite = validated(Suite, named, source=str(path), lines=lines, changes=changes)
    _check(suite, values)
    return suite


def _named(given: dict[str, Any], file: YamlFile) -> dict[str, Any]:
    """Take the names out of the list of checkpoints: everything else knows them by their paths."""
    listed = given.get("checkpoints")
    if not isinstance(listed, list):
        return given
    paths, labels = [], dict(given.get("labels") or {})
    for i, item in enumerate(listed):
        if isinstance(item, dict):
            keys = {key: f"checkpoints.{i}.{key}" for key in ("path", "name", *item)}
            line = file.lines.get(f"checkpoints.{i}")  # for a missing key; none for an override
            numbers = {key: file.lines.get(full, line) for key, full in keys.items()}
            lines = {key: number for key, number in numbers.items() if number}
            named = validated(Named, item, source=str(file.path), lines=lines)
            labels[named.path] = named.name
        paths.append(named.path if isinstance(item, dict) else item)
    return {**given, "checkpoints": paths, "labels": labels}


def _check(suite: Suite, file: YamlFile) -> None:
    if not suite.masks and not (suite.checkpoints and suite.tasks):
        raise _refused("a suite has checkpoints and tasks, or masks", file, "checkpoints")
    _check_masks(suite, file)
    names = [step.name for step in suite.pretrain]
    masks = [*suite.data, *(step.name for step in suite.masks)]
    for i, step in enumerate(suite.pretrain):
        if names.count(step.name) > 1 or random_weights(step.name):
            text = f"pretraining {step.name!r} needs a name of its own"
            raise _refused(text, file, f"pretrain.{i}.name")
        _check_name(step.data, suite.data, "data folder", file, f"pretrain.{i}.data")
        _check_name(step.masks, masks, "data folder", file, f"pretrain.{i}.masks")
        with _located(file, f"pretrain.{i}.recipe"):
            from pretrain.recipe import load as load_pretraining

            load_pretraining(step.recipe, step.method, step.overrides)
    for i, checkpoint in enumerate(suite.checkpoints):
        if suite.checkpoints.count(checkpoint) > 1:
            text = f"checkpoint {checkpoint!r} is listed twice"
            raise _refused(text, file, f"checkpoints.{i}")
    for name in suite.labels:
        _check_name(name, suite.checkpoints, "checkpoint", file, f"labels.{name}")
    if len(set(suite.seeds)) != len(suite.seeds) or min(suite.seeds) < 0:
        raise _refused("seeds are whole numbers from 0 up, each once", file, "seeds")
    _check_baseline(suite, file)
    for i, task in enumerate(suite.tasks):
        _check_task(suite, task, file, f"tasks.{i}")


def _check_baseline(suite: Suite, file: YamlFile) -> None:
    """Refuse a baseline that nothing measures: the report would fail when everything is done."""
    baseline, measured = suite.report.baseline, suite.checkpoints
    drawn = [checkpoint for checkpoint in measured if random_weights(checkpoint)]
    unmeasured = baseline in {step.name for step in suite.pretrain} - {*measured}
    if measured and (unmeasured or (baseline == RANDOM and not drawn)):
        hint = f"add {baseline} to the checkpoints, or give report.baseline=null"
        raise _refused("the baseline is not among the checkpoints", file, "report.baseline", hint)


def _check_masks(suite: Suite, file: YamlFile) -> None:
    """Refuse names that lead nowhere, and parameters that the makers do not accept."""
    from harl_bench.masks.finish import parse_threshold
    from harl_bench.masks.fit_run import parameters

    names = set(suite.data)
    steps: dict[str, Sequence[Fitting | Masks]] = {"fit": suite.fit, "masks": suite.masks}
    for kind, members in steps.items():
        for i, step in enumerate(members):
            if step.name in names:
                text = f"{kind} {step.name!r} needs a name of its own"
                raise _refused(text, file, f"{kind}.{i}.name")
            names.add(step.name)
            for key in ("data", "masks", "truth"):
                value = getattr(step, key, None)
                _check_name(value, suite.data, "data folder", file, f"{kind}.{i}.{key}")
    for i, fitting in enumerate(suite.fit):
        if fitting.method == "drfi" and fitting.masks is None:
            raise _refused("drfi learns from masks", file, f"fit.{i}")
        with _located(file, f"fit.{i}.overrides" if fitting.overrides else f"fit.{i}"):
            parameters(fitting.method, fitting.overrides)
    methods = {fitting.name: fitting.method for fitting in suite.fit}
    for i, masks in enumerate(suite.masks):
        method, learns = masks.method, masks.method in ("drfi", "deep")
        if not learns and masks.model is not None:
            text = f"{method} learns nothing and takes no model"
            raise _refused(text, file, f"masks.{i}.model")
        if learns and methods.get(masks.model or "") != method:
            text = f"masks by {method} need the name of a {method} fit as model"
            raise _refused(text, file, f"masks.{i}")
        with _located(file, f"masks.{i}.threshold"):
            parse_threshold(masks.threshold or "otsu")


def _check_task(suite: Suite, task: Task, file: YamlFile, key: str) -> None:
    """Check one task's names, and that its own room accepts its recipe, overrides included."""
    _check_name(task.data, suite.data, "data folder", file, f"{key}.data")
    for name in task.checkpoints or ():
        _check_name(name, suite.checkpoints, "checkpoint", file, f"{key}.checkpoints")
    needed, other = ("protocol", "recipe") if task.task == "classify" else ("recipe", "protocol")
    if getattr(task, other) is not None or getattr(task, needed) is None:
        text = f"task {task.task} takes a {needed} and no {other}"
        raise _refused(text, file, f"{key}.task")
    with _located(file, f"{key}.{needed}"):
        if task.task == "classify":
            from harl_bench.classify.datasets import DATASETS
            from harl_bench.classify.protocol import load as load_protocol

            lookup(DATASETS, task.dataset, "data set")
            load_protocol(task.setting, task.overrides)
            return
        if task.task == "segment":
            if task.engine != "auto":
                raise UsageError("task segment has no engine to choose", seen=task.engine)
            from harl_bench.segmentation.recipe import load as load_segmentation

            load_segmentation(task.setting, task.overrides)
            return
        from harl_bench.detection.recipe import load as load_recipe

        for name in load_recipe(task.setting, task.overrides).DATASETS.TEST:
            if not name.startswith(f"{task.task}_"):
                raise UsageError(f"recipe {task.setting} is not for task {task.task}", seen=name)


def _check_name(
    name: str | None, names: Collection[str], kind: str, file: YamlFile, key: str
) -> None:
    if name is not None and name not in names:
        raise _refused(unknown(name, names, kind), file, key)


def _refused(what: str, file: YamlFile, key: str, hint: str | None = None) -> UsageError:
    line = file.lines.get(key)
    return UsageError(what, where=f"{file.path}:{line}" if line else file.path, next=hint)


@contextlib.contextmanager
def _located(file: YamlFile, key: str) -> Iterator[None]:
    """Add to another room's refusal where in the suite the name stands, unless it says where."""
    try:
        yield
    except UsageError as error:
        where = error.where or _refused("", file, key).where
        raise UsageError(error.what, where=where, seen=error.seen, next=error.next) from None
