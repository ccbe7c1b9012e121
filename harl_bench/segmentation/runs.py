"""Run the plan, or print it with --dry-run, and record the results."""

from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes
from harl_bench.core.label import labelled, relabel
from harl_bench.core.progress import log, log_file
from harl_bench.core.results import RESULT, Result, read_result
from harl_bench.core.runs import write_result
from harl_bench.core.summary import free_disk, show_plan, summarize, took
from harl_bench.core.toy import is_toy
from harl_bench.nn import checkpoint, distributed, launching
from harl_bench.segmentation import confusion, memory, speed
from harl_bench.segmentation.confusion import Matrix
from harl_bench.segmentation.datasets.checks import require_usable
from harl_bench.segmentation.measure import measure
from harl_bench.segmentation.overrides import Options
from harl_bench.segmentation.plan import SEGMENTER, TASK, PlannedRun, plan_runs

Metrics = dict[str, float | None]


def run(options: Options) -> list[Path]:
    """Plan, check and do every run of seeds x learning rates; return the folders of the results.

    Raises:
        BenchError: as the parts do.
    """
    with distributed.joined():
        plan = plan_runs(options)
        with distributed.failing_together():
            if distributed.is_main():
                _check(plan, options)
        if options.dry_run:
            if distributed.is_main():
                _describe(plan, options)
            return []
        results = [_run_one(p, options) for p in plan]
        if distributed.is_main():
            summarize(filter(None, results), options.out)
        return [p.run.folder for p in plan]


def shown(metrics: Metrics) -> str:
    """Return the scores in one line."""
    values = {name: "-" if value is None else f"{value:.2f}" for name, value in metrics.items()}
    return "  ".join(f"{name} {value}" for name, value in values.items())


def _check(plan: list[PlannedRun], options: Options) -> None:
    """Check, also in --dry-run, what would stop a run hours later.

    Raises:
        CheckpointError: --eval-only has nothing to score.
        DataError: a label is not as it should be, or a test image cannot be read.
    """
    for p in plan:
        _weights(p, options)
    new = any(p.run.state != "finished" and not p.job.last.is_file() for p in plan)
    if options.eval_only or new:
        require_usable(plan[0].job.test, scored=True)
    if new and not options.eval_only:
        sweeps = plan[0].job.recipe.sweep is not None  # and scores images that it holds out
        require_usable(plan[0].job.train, scored=sweeps)


def _run_one(p: PlannedRun, options: Options) -> Result | None:
    """Do a run unless it is finished, and return its result, None but in the first process."""
    ref = p.job.backbone.ref
    name = f"{TASK} {p.protocol} {ref.name} seed {p.job.seed}"
    if p.run.state == "finished" and not options.eval_only:
        metrics = read_result(p.run.folder / RESULT).metrics
        log.info("%s: finished before, in %s: %s", name, p.run.folder, shown(metrics))
        if distributed.is_main():
            relabel(p.run.folder, options.label)
        return read_result(p.run.folder / RESULT)
    weights = _weights(p, options)
    arguments = (p.job, weights, options.images)
    if not distributed.is_main():  # a launcher's other processes: the first one writes
        measure(*arguments)
        return None
    with p.run.locked(), log_file(p.run.folder / "log.txt"):
        verb = "continuing" if p.run.state == "unfinished" else "training"
        log.info("%s: %s, in %s", name, "scoring" if weights else verb, p.run.folder)
        write_bytes(p.run.folder / "config.yaml", p.job.recipe.to_yaml().encode())
        started = manifest.now()
        measured = launching.launch(measure, p.processes, *arguments)
        assert measured is not None, "the first process scores"
        matrix, about = measured
        result = _result(p, options, matrix, about, started)
        log.info("%s: %s", name, shown(result.metrics))
        for title, values in result.per_class.items():
            if values["IoU"] is not None:
                log.debug("  %-16s %s", title, shown(values))  # with --verbose
        if absent := [name for name, values in result.per_class.items() if values["IoU"] is None]:
            log.info("  classes that are nowhere: %s", ", ".join(absent))
        if weights is None or ref.format == SEGMENTER:
            write_result(p.run, result)
            log.info("result in %s", p.run.folder / RESULT)
    return result


def _weights(p: PlannedRun, options: Options) -> Path | None:
    """Return the segmenter to score with --eval-only, else None.

    Raises:
        CheckpointError: there is none, or its training is not finished.
    """
    if not options.eval_only:
        return None
    if p.job.backbone.ref.format == SEGMENTER:
        return Path(options.checkpoint)
    total = p.job.recipe.solver.iterations
    last = p.job.last
    seen = checkpoint.load_own(last).get("iterations") if last.is_file() else "no saved state"
    if seen != total:
        raise CheckpointError(
            "no trained segmenter to evaluate",
            where=p.job.folder,
            seen=f"{seen} of {total} iterations" if last.is_file() else seen,
            next="leave out --eval-only",
        )
    return last


def _result(
    p: PlannedRun, options: Options, matrix: Matrix, about: dict[str, Any], started: str
) -> Result:
    job = p.job
    metrics, per_class = confusion.scores(matrix, job.test.classes)
    departures = [*p.departures]
    if unreadable := about["unreadable"]:
        departures.append(f"{len(unreadable)} unreadable training images skipped")
    absent = [name for name, values in per_class.items() if values["IoU"] is None]
    if absent:
        total = len(per_class)
        departures.append(f"{len(absent)} of {total} classes are nowhere and not in the mean")
    batch = job.recipe.solver.batch
    record = {"confusion": matrix.tolist(), "selection": about.get("selection")}
    return Result(
        run_id=p.run.run_id,
        task=TASK,
        dataset=job.recipe.dataset,
        protocol=p.protocol,
        engine="torch",
        method=job.backbone.method,
        checkpoint=job.backbone.ref,
        **labelled(options.label),
        seed=job.seed,
        metrics=metrics,
        per_class=per_class,
        n_test=len(job.test.items),
        data_fingerprint=p.fingerprint,
        contents=p.run.contents,
        toy=is_toy(job.test.root, p.recipe) or job.backbone.toy,
        config={
            "recipe": job.recipe.identity(),
            "processes": p.processes,
            "images_per_process": batch // p.processes,
        },
        departures=departures,
        manifest=manifest.collect() | {k: v for k, v in record.items() if v is not None},
        started=started,
        wall_s=round(about["wall_s"], 1),
        peak_memory_mb=round(about["peak_memory_mb"], 1),
    )


def _describe(plan: list[PlannedRun], options: Options) -> None:
    """Print the plan for --dry-run."""
    if not distributed.is_main():
        return
    first = plan[0]
    job, recipe = first.job, first.job.recipe
    log.debug("%s", recipe.to_yaml())  # with --verbose
    ref, classes = job.backbone.ref, len(job.train.classes)
    images = recipe.solver.batch // first.processes
    image, fixed = (f(recipe, classes) for f in (memory.per_image_gib, memory.fixed_gib))
    trainings = 1 + len(recipe.sweep.lr) if recipe.sweep else 1
    times = f"{trainings} trainings of " if trainings > 1 else ""
    finished = [p.run.folder for p in plan if p.run.state == "finished"]
    show_plan(
        {
            "recipe": f"{first.recipe}, departures from it are named beside each run",
            "train": f"{recipe.dataset} {job.train.name}: {len(job.train.items):,} images, "
            f"{classes} classes",
            "test": f"{recipe.dataset} {job.test.name}: {len(job.test.items):,} images, "
            f"{len(job.test.classes)} classes",
            "checkpoint": f"{ref.path}: {ref.format}, {len(job.backbone.tensors)} of 265 tensors, "
            f"{ref.sha256[:16] or '-'}",
            "device": f"{first.processes} x {job.device}, {images} images of a batch and "
            f"{job.workers} data workers each",
            "memory": f"about {image * images + fixed:.1f} GiB each: {images} images of "
            f"{recipe.input.crop_px} px with {image:.2f}, and {fixed:.1f} for weights",
            "time": took(finished) or speed.estimate(recipe, classes),
            "disk": f"{free_disk(options.out)}; a run keeps about 0.6 GiB",
        },
        [(p.run.state, f"{p.run.folder}  {'; '.join(p.departures)}") for p in plan],
        each=f"{times}{recipe.solver.iterations:,} iterations x {recipe.solver.batch} images",
    )
