"""The learning rate chosen on held-out training images (BYOL, 2006.07733, D.4).

Each rate trains on the other images and is scored on the held-out ones. The best (ties: the
smaller) then trains on all. A rate is finished when `sweep/lr<rate>/point.json` exists.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harl_bench.core.errors import TrainingError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.progress import log
from harl_bench.nn import distributed
from harl_bench.segmentation import confusion
from harl_bench.segmentation.evaluate import evaluate
from harl_bench.segmentation.job import Job
from harl_bench.segmentation.recipe import Recipe
from harl_bench.segmentation.train import train

POINT, CHOICE = "point.json", "selection.json"


def require_images(recipe: Recipe, n: int) -> None:
    """Raise a UsageError where the held-out images leave none to train on."""
    if recipe.sweep and recipe.sweep.held_out >= n:
        raise UsageError(
            f"sweep.held_out {recipe.sweep.held_out:,} of {n:,} training images leaves none",
            next=f"add the override sweep.held_out={max(1, n // 5)}",
        )


def select(job: Job) -> tuple[Job, dict[str, Any]]:
    """Return the job with the selected rate, and {"lr", "mIoU", "grid", "wall_s"}.

    Raises:
        TrainingError: every rate diverged.
    """
    sweep = job.recipe.sweep
    assert sweep is not None, "only recipes with a sweep choose"
    order = np.random.default_rng((job.seed, sweep.held_out)).permutation(len(job.train.items))
    held, rest = (np.sort(part).tolist() for part in np.split(order, [sweep.held_out]))
    points = [
        _point(
            replace(
                at_rate(job, lr),
                train=job.train.part(rest, "train without the held-out images"),
                test=job.train.part(held, "held-out training images"),
                folder=job.folder / "sweep" / f"lr{lr:.4g}",
            )
        )
        for lr in sorted(sweep.lr)
    ]
    scored = [point for point in points if point["mIoU"] is not None]
    if not scored:
        raise TrainingError("the loss is not finite at any rate of the sweep", next="sweep.lr")
    best = max(scored, key=lambda point: float(point["mIoU"]))  # the first of equal ones
    at_edge = best["lr"] in (min(sweep.lr), max(sweep.lr))
    if at_edge:
        log.warning("learning rate %g is an end of the sweep; widen it", best["lr"])
    log.info("selected learning rate %g: held-out mIoU %.2f", best["lr"], best["mIoU"])
    selection = {
        "lr": best["lr"],
        "mIoU": best["mIoU"],
        "held_out": len(held),
        "at_edge": at_edge,
        "grid": points,
    }
    if distributed.is_main():
        write_json(job.folder / CHOICE, selection)
    return at_rate(job, best["lr"]), selection


def at_rate(job: Job, lr: float) -> Job:
    """Return the job with one learning rate and no sweep."""
    solver = job.recipe.solver.model_copy(update={"lr": lr})
    recipe = job.recipe.model_copy(update={"solver": solver, "sweep": None})
    return replace(job, recipe=recipe)


def _point(job: Job) -> dict[str, Any]:
    """Return {"lr", "mIoU", "wall_s"} of one rate; a rate that diverges has mIoU None."""
    path = job.folder / POINT
    (finished,) = {*distributed.gather(path.is_file())}
    if not finished:
        point = _measured(job)
        if distributed.is_main():
            write_json(path, point)
            job.last.unlink(missing_ok=True)  # a network is 600 MB with its optimizer
        distributed.barrier()
    point = json.loads(Path(path).read_text())
    assert isinstance(point, dict), "it was written above"
    return point


def _measured(job: Job) -> dict[str, Any]:
    lr = job.recipe.solver.lr
    try:
        about = train(job, f"train at lr {lr:.4g}")
    except TrainingError as error:
        log.warning("lr %.4g: %s", lr, error.what)
        return {"lr": lr, "mIoU": None, "wall_s": 0.0}
    matrix, _ = evaluate(job, job.last, what="evaluate held-out images")
    metrics, _ = confusion.scores(matrix, job.test.classes)
    log.info("lr %.4g: held-out mIoU %.2f", lr, metrics["mIoU"] or 0.0)
    return {"lr": lr, "mIoU": metrics["mIoU"], "wall_s": about["wall_s"]}
