"""The recipe of a run: its file, the options that stand for recipe keys, and overrides."""

from typing import Any

from harl_bench.core.errors import UsageError
from harl_bench.core.progress import log
from harl_bench.detection import recipe
from harl_bench.detection.options import Options
from harl_bench.detection.recipe import NEUTRAL, Recipe


def require_distinct(options: Options) -> None:
    """Raise a UsageError where an option and an override set the same key."""
    keys = {*_option_keys(options), *(["SOLVER.BASE_LR"] if options.lr else [])} - NEUTRAL
    if repeated := [x for x in options.overrides if x.partition("=")[0].strip() in keys]:
        what, hint = "an option and an override set the same recipe key", "leave out one of them"
        raise UsageError(what, seen=repeated[0], next=hint)


def resolve(options: Options) -> Recipe:
    """Return the recipe with options and overrides applied."""
    return recipe.load(options.recipe, _overrides(options))


def resolve_run(options: Options, rate: float | None, n_classes: int) -> Recipe:
    """Return the recipe of a run, also with the linear rule, its rate and the number of classes."""
    overrides = _overrides(options)
    base = resolve(options)
    recipe_classes = base.MODEL.ROI_HEADS.NUM_CLASSES
    if options.scale_lr and options.batch:
        solver = recipe.load(options.recipe, options.overrides).SOLVER
        # the linear rule, as D2:engine/defaults.py:669-737
        factor = options.batch / solver.IMS_PER_BATCH
        steps = "".join(f"{round(step / factor)}, " for step in solver.STEPS)
        warmup = round(solver.WARMUP_ITERS / factor)
        rate = (solver.BASE_LR if rate is None else rate) * factor
        scaled = [f"SOLVER.STEPS=({steps})", f"SOLVER.WARMUP_ITERS={warmup}"]
        if options.max_iter is None:
            scaled.append(f"SOLVER.MAX_ITER={round(solver.MAX_ITER / factor)}")
        log.info("linear rule, x %g: SOLVER.BASE_LR=%.10g  %s", factor, rate, "  ".join(scaled))
        overrides += scaled
    if rate is not None:
        overrides.append(f"SOLVER.BASE_LR={rate:.10g}")
    if n_classes != recipe_classes:
        message = "the data have %d classes, recipe %s has %d: the heads get %d"
        log.warning(message, n_classes, base.name, recipe_classes, n_classes)
        overrides.append(f"MODEL.ROI_HEADS.NUM_CLASSES={n_classes}")
    return recipe.load(options.recipe, overrides)


def _overrides(options: Options) -> list[str]:
    """Return the options that stand for recipe keys, then the overrides of the command."""
    return [f"{key}={value}" for key, value in _option_keys(options).items()] + [*options.overrides]


def _option_keys(options: Options) -> dict[str, Any]:
    """Return the recipe keys that options stand for, with their values."""
    keys = {
        "SOLVER.MAX_ITER": options.max_iter,
        "SOLVER.AMP.ENABLED": True if options.amp else None,
        "DATALOADER.NUM_WORKERS": options.workers,
        "SOLVER.IMS_PER_BATCH": options.batch,
    }
    return {key: value for key, value in keys.items() if value is not None}
