"""The recipe of a run: its file, the options that stand for keys, and overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.convert.formats import Net
from harl_bench.core.errors import UsageError
from harl_bench.core.options import require_consistent
from harl_bench.core.progress import log
from harl_bench.segmentation import recipe
from harl_bench.segmentation.recipe import Recipe, Solver


@dataclass(frozen=True)
class Options:
    """The options of `segment`; see run.py."""

    checkpoint: str
    overrides: Sequence[str]
    data: Path | None
    recipe: str
    seeds: Sequence[int]
    out: Path
    net: Net | None
    eval_only: bool
    max_iter: int | None
    lr: Sequence[float] | None
    batch: int | None
    scale_lr: bool
    amp: bool
    workers: int | None
    gpus: int | None
    allow_unreadable: bool
    images: int
    label: str | None
    dry_run: bool
    fresh: bool


def require_distinct(options: Options) -> None:
    """Raise a UsageError for options that contradict each other or an override."""
    require_consistent(options.seeds, options.lr, options.batch, scale_lr=options.scale_lr)
    keys = {*_option_keys(options), *(["solver.lr", "sweep"] if options.lr else [])}
    if repeated := [x for x in options.overrides if x.partition("=")[0].strip() in keys]:
        what, hint = "an option and an override set the same recipe key", "leave out one of them"
        raise UsageError(what, seen=repeated[0], next=hint)
    rates = [x for x in options.overrides if x.partition("=")[0].strip() == "solver.lr"]
    if rates and recipe.load(options.recipe, options.overrides)[1].sweep:
        rate = rates[-1].partition("=")[2].strip()
        hint = f"--lr {rate} trains at this rate alone, sweep.lr=[...] tries others"
        raise UsageError("the recipe's sweep replaces solver.lr", seen=rates[-1], next=hint)


def resolve(options: Options, rate: float | None = None) -> tuple[str, Recipe, list[str]]:
    """Return the recipe's name, the recipe of a run, and its departures.

    Args:
        rate: of --lr; it takes the place of a sweep.
    """
    overrides = [f"{k}={v}" for k, v in _option_keys(options).items()] + [*options.overrides]
    if rate is not None:
        overrides += [f"solver.lr={rate:.10g}", "sweep=null"]
    if options.scale_lr and options.batch:
        original = recipe.load(options.recipe, options.overrides)[1]
        scaled = _scaled(original, options.batch, rate, keep_length=options.max_iter is not None)
        log.info("linear rule: %s", "  ".join(scaled))
        overrides += scaled
    return recipe.load(options.recipe, overrides)


def batch_departure(options: Options, ours: Solver) -> str | None:
    """Return the effect of another batch on a schedule not scaled with it, None if they fit."""
    theirs = recipe.load(options.recipe)[1].solver
    if options.scale_lr or ours.batch == theirs.batch:
        return None
    larger = ours.batch / theirs.batch
    factors = {
        "the epochs": larger * ours.iterations / theirs.iterations,
        "the learning rate for each image": ours.lr / theirs.lr / larger,
    }
    effects = [f"{x:.3g} x {name}" for name, x in factors.items() if abs(x - 1) > 0.01]
    change = f"batch {ours.batch} instead of {theirs.batch} without --scale-lr"
    return f"{change}: {', '.join(effects)}" if effects else None


def _scaled(original: Recipe, batch: int, rate: float | None, *, keep_length: bool) -> list[str]:
    """Return the overrides of the linear rule: rates x, iterations and steps / (batch / ours)."""
    solver, factor = original.solver, batch / original.solver.batch
    steps = ", ".join(str(max(1, round(step / factor))) for step in solver.steps)
    lr = (solver.lr if rate is None else rate) * factor
    overrides = [f"solver.lr={lr:.10g}", f"solver.lr_min={solver.lr_min * factor:.10g}"]
    if original.sweep and rate is None:
        tried = ", ".join(f"{lr * factor:.10g}" for lr in original.sweep.lr)
        overrides.append(f"sweep.lr=[{tried}]")
    if solver.steps:
        overrides.append(f"solver.steps=[{steps}]")
    if not keep_length:
        overrides.append(f"solver.iterations={max(1, round(solver.iterations / factor))}")
    return overrides


def _option_keys(options: Options) -> dict[str, Any]:
    """Return the recipe keys that options stand for, with their values."""
    keys = {
        "solver.iterations": options.max_iter,
        "amp": "true" if options.amp else None,
        "workers": options.workers,
        "solver.batch": options.batch,
    }
    return {key: value for key, value in keys.items() if value is not None}
