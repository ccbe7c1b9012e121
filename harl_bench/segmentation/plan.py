"""From a command's options to a plan: recipe, data, weights and devices, checked together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from harl_bench.convert.formats import InputConvention
from harl_bench.convert.read import Backbone, read_backbone, stated_input
from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.core.options import require_single
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef
from harl_bench.core.runs import Run, open_run
from harl_bench.core.siblings import usual_fingerprint
from harl_bench.nn import checkpoint, distributed
from harl_bench.segmentation import datasets, sweep
from harl_bench.segmentation.evaluate import state
from harl_bench.segmentation.job import Job
from harl_bench.segmentation.overrides import Options, batch_departure, require_distinct, resolve
from harl_bench.segmentation.recipe import Recipe

TASK, SEGMENTER = "segment", "segmenter"


@dataclass(frozen=True)
class PlannedRun:
    """A run, finished or not, with its inputs."""

    run: Run
    job: Job
    recipe: str
    protocol: str
    departures: list[str]
    processes: int
    fingerprint: str


def plan_runs(options: Options) -> list[PlannedRun]:
    """Return every run of the command, all inputs read and checked against each other."""
    require_distinct(options)
    world, device = distributed.devices(options.gpus)
    train, test = datasets.read(resolve(options)[1].dataset, options.data)
    fingerprints = datasets.fingerprints((train, test))
    contents = datasets.contents_of((train, test)) if distributed.is_main() else {}
    if segmenter := _segmenter(options):
        require_single(options.seeds, options.lr)
    backbones: dict[int, Backbone] = {}
    plan = []
    rates: Sequence[float | None] = options.lr or [None]
    for rate in rates:
        name, recipe, departures = resolve(options, rate)
        _check(options, recipe, world, device, len(train.items))
        protocol = name if rate is None else f"{name}-lr{recipe.solver.lr:g}"
        for seed in options.seeds:
            # One file serves all seeds; random weights are each seed's own.
            key = seed if options.checkpoint == "random" else 0
            if key not in backbones:
                backbones[key] = segmenter or read_backbone(
                    options.checkpoint, net=options.net, seed=seed
                )
            run, data = _opened(
                options,
                fingerprints,
                dataset=recipe.dataset,
                protocol=protocol,
                checkpoint=backbones[key].ref,
                seed=seed,
                config={"recipe": recipe.identity()},
                contents=contents,
            )
            job = Job(
                recipe=recipe,
                backbone=backbones[key],
                train=train,
                test=test,
                folder=run.folder,
                seed=seed,
                device=device,
                workers=recipe.workers,
                allow_unreadable=options.allow_unreadable,
            )
            about = [*departures, *_departures(options, job)]
            plan.append(PlannedRun(run, job, name, protocol, about, world, data))
    for departure in dict.fromkeys(_departures(options, plan[0].job)):
        log.warning("%s", departure)
    return plan


def _departures(options: Options, job: Job) -> list[str]:
    """Return what makes the result another than the recipe's, besides its overrides."""
    backbone = job.backbone
    learnt = {
        "from high-pass filtered images and sees plain ones": backbone.input.high_pass,
        f"with feature_grid {backbone.feature_grid} and has the recipe's strides": (
            backbone.feature_grid != 7
        ),
        "with TensorFlow's SAME padding and has torch's": backbone.padding == "same",
    }
    departures = [
        *backbone.departures,
        *(f"the backbone learnt {how}" for how, applies in learnt.items() if applies),
        batch_departure(options, job.recipe.solver),
        None if backbone.ref.format == SEGMENTER else job.train.departure,
        job.test.departure,
    ]
    return [departure for departure in departures if departure]


def _opened(options: Options, fingerprints: Sequence[str], **identity: Any) -> tuple[Run, str]:
    """Return the run folder, opened by the first process for all, and its data's fingerprint.

    A run counts under any of the fingerprints. A new one takes that of the checkpoint's other
    seeds.
    """
    match: tuple[Run, str] | None = None
    look_up = partial(open_run, options.out, task=TASK, **identity)
    fresh = options.fresh and not options.eval_only
    with distributed.failing_together():
        if distributed.is_main():
            runs = [
                (look_up(data_fingerprint=f, fresh=fresh, dry_run=True), f) for f in fingerprints
            ]
            states = ("finished", "unfinished")
            known = [f for state in states for run, f in runs if run.state == state]
            usual = (known or [usual_fingerprint(runs[0][0].folder, fingerprints)])[0]
            run = look_up(data_fingerprint=usual, fresh=fresh, dry_run=options.dry_run)
            match = run, usual
    return next(filter(None, distributed.gather(match)))


def _check(options: Options, recipe: Recipe, world: int, device: str, images: int) -> None:
    """Raise a UsageError where recipe, machine and data do not fit."""
    if recipe.solver.batch % world:
        what = f"{recipe.solver.batch} images an iteration cannot be split over {world} GPUs"
        raise UsageError(what, next="--gpus or --batch")
    if recipe.amp and device == "cpu" and not options.eval_only:
        hint = "leave out --amp" if options.amp else "add the override amp=false"
        raise UsageError("mixed precision needs a GPU", seen="amp true on the CPU", next=hint)
    sweep.require_images(recipe, images)


def _segmenter(options: Options) -> Backbone | None:
    """Return with --eval-only a checkpoint that is a segmenter, else None."""
    path = Path(options.checkpoint)
    if not options.eval_only or not path.is_file():
        return None
    payload, _ = checkpoint.read(path)
    if state(payload) is None:
        return None
    with checkpoint.telling(path):
        _require_same_network(path, payload.get("network"), resolve(options)[1].of_network())
        stated = payload.get("harl_bench")
        stated = stated if isinstance(stated, dict) else {}
        convention = stated_input(stated) or InputConvention()
    sha256 = manifest.sha256(path)
    ref = CheckpointRef(path=str(path), name=path.stem, sha256=sha256, format=SEGMENTER)
    about = ["a given segmenter was scored, nothing was trained (--eval-only)"]
    return Backbone(
        tensors={},
        ref=ref,
        input=convention,
        stride_in_1x1=stated.get("stride_in_1x1") is True,
        departures=about,
    )


def _require_same_network(path: Path, noted: Any, present: dict[str, Any]) -> None:
    """Raise a CheckpointError where a segmenter states other keys of the network than the recipe.

    Files of earlier versions and of mmsegmentation state none.
    """
    if not isinstance(noted, dict):
        return
    if different := [key for key, value in present.items() if noted.get(key) != value]:
        overrides = (quote(f"{key}={json.dumps(noted.get(key))}") for key in different)
        raise CheckpointError(
            f"the segmenter was trained with another {', '.join(different)}",
            where=path,
            seen=", ".join(f"{k} {noted.get(k)}, the recipe has {present[k]}" for k in different),
            next=f"add the overrides {' '.join(overrides)}",
        )
