"""Run the plan, or print it with --dry-run, and record the results."""

from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes
from harl_bench.core.label import labelled, relabel
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import RESULT, Result, read_result
from harl_bench.core.runs import write_result
from harl_bench.core.summary import free_disk, show_plan, summarize, took
from harl_bench.core.toy import is_toy
from harl_bench.detection import batch, recipe
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import MOVING_SCORES
from harl_bench.detection.measure import measure, require_scorable, require_trainable
from harl_bench.detection.options import Options
from harl_bench.detection.plan import PlannedRun, mismatches, plan_runs
from harl_bench.detection.recipe import Recipe
from harl_bench.detection.scoring import Scores, shown
from harl_bench.nn import distributed, launching


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
            _describe(options, plan)
            return []
        if options.engine == "both":
            from harl_bench.detection.comparison import compare_all

            compare_all([(f"{p.protocol} seed {p.job.seed}", p.job) for p in plan])
            return []
        results = [_run_one(p, options) for p in plan]
        if distributed.is_main():
            summarize(filter(None, results), options.out)
        return [p.run.folder for p in plan]


def _check(plan: list[PlannedRun], options: Options) -> None:
    """Check, also in --dry-run, what would stop a run at its end.

    Raises:
        CheckpointError: --eval-only has no detector to score.
        DataError: a test image cannot be read (a score needs them all), or a training image is of
            another size than its annotation says.
    """
    for p in plan:
        _weights(p, options)
    states = [(p.run.state, any(p.run.checkpoints.glob("*.pth"))) for p in plan]
    new = any(state != "finished" and not begun for state, begun in states)
    if options.eval_only or new:
        require_scorable(plan[0].job.test, options.evaluator)
    if new and not options.eval_only:
        require_trainable(plan[0].job.train)


def _run_one(p: PlannedRun, options: Options) -> Result | None:
    """Do a run unless it is finished, and return its result, None but in the first process."""
    name = f"{options.task} {p.protocol} {p.backbone.ref.name} seed {p.job.seed}"
    if p.run.state == "finished" and not options.eval_only:
        result = read_result(p.run.folder / RESULT)
        scores_text = shown(result.metrics, result.metric)
        log.info("%s: finished before, in %s: %s", name, p.run.folder, scores_text)
        if distributed.is_main():
            relabel(p.run.folder, options.label)
        return read_result(p.run.folder / RESULT)
    weights = _weights(p, options)
    arguments = (p.config["engine"], p.job, weights, options.images)
    if not distributed.is_main():  # a launcher's other processes: the first one writes
        measure(*arguments)
        return None
    with p.run.locked(), log_file(p.run.folder / "log.txt"):
        verb = "continuing" if p.run.state == "unfinished" else "training"
        log.info("%s: %s, in %s", name, "scoring" if weights else verb, p.run.folder)
        write_bytes(p.run.folder / "config.yaml", p.job.recipe.to_yaml().encode())
        started = manifest.now()
        measured = launching.launch(measure, int(p.config["processes"]), *arguments)
        assert measured is not None, "the first process scores"
        scores, about = measured
        log.info("%s: %s", name, shown(scores.metrics, scores.metric))
        _log_classes(scores, options.task)
        result = _result(p, options, scores, about, started)
        if weights is None or p.backbone.ref.format == "detector":
            write_result(p.run, result)
            log.info("result in %s", p.run.folder / RESULT)
    return result


def _weights(p: PlannedRun, options: Options) -> Path | None:
    """Return the detector to score with --eval-only, else None."""
    if not options.eval_only:
        return None
    if p.backbone.ref.format == "detector":
        return Path(options.checkpoint)
    if (path := p.job.folder / "checkpoints" / "model_final.pth").is_file():
        return path
    what, hint = "no trained detector to evaluate", "leave out --eval-only"
    raise CheckpointError(what, where=p.job.folder, next=hint)


def _result(
    p: PlannedRun, options: Options, scores: Scores, about: dict[str, Any], started: str
) -> Result:
    settings, test = p.job.recipe, p.job.test
    return Result(
        run_id=p.run.run_id,
        task=options.task,
        dataset=p.dataset,
        protocol=p.protocol,
        engine=p.config["engine"],
        method=p.backbone.method,
        checkpoint=p.backbone.ref,
        **labelled(options.label),
        seed=p.job.seed,
        metrics=scores.metrics,
        metric=scores.metric,
        per_class=scores.per_class,
        n_test=len(test.samples),
        data_fingerprint=p.fingerprint,
        contents=p.run.contents,
        toy=is_toy(test.root, settings.name) or p.backbone.toy,
        config={**p.config, "images_per_process": _images_per_process(p)},
        departures=_departures(p, options, scores, about["unreadable"]),
        manifest=manifest.collect(),
        started=started,
        wall_s=round(about["wall_s"], 1),
        peak_memory_mb=round(about["peak_memory_mb"], 1),
    )


def _images_per_process(p: PlannedRun) -> int:
    return int(p.job.recipe.SOLVER.IMS_PER_BATCH) // int(p.config["processes"])


def _departures(
    p: PlannedRun, options: Options, scores: Scores, unreadable: dict[str, str]
) -> list[str]:
    """Return what makes the result another than the recipe's, one sentence each."""
    settings, test, backbone = p.job.recipe, p.job.test, p.backbone
    departures = [*settings.departures, *backbone.departures]
    if mismatch := batch.departure(settings, recipe.load(options.recipe), scaled=options.scale_lr):
        departures.append(mismatch)
    given = backbone.ref.format == "detector"
    for part in (test,) if given else (p.job.train, test):
        departures += part.departures
        if n := part.faults.get(voc.FROM_0):
            departures.append(f"{part.name}: {n} {voc.FROM_0}")
    if options.scale_lr:
        departures.append("schedule scaled by the linear rule (--scale-lr)")
    departures += mismatches(backbone)
    if unreadable:
        departures.append(f"{len(unreadable)} unreadable training images skipped")
    departures += [f"{test.faults[key]} {key}" for key in MOVING_SCORES if key in test.faults]
    absent, total = sum(map(_is_absent, scores.per_class.values())), len(scores.per_class)
    if absent:
        effect = "count 0 in the mean" if options.task == "voc" else "are not in the mean"
        departures.append(f"{absent} of {total} classes have no test object and {effect}")
    if given:
        departures.append("a given detector was scored, nothing was trained (--eval-only)")
    return departures


def _log_classes(scores: Scores, task: str) -> None:
    present = {name: values for name, values in scores.per_class.items() if not _is_absent(values)}
    for name, values in present.items():
        log.debug("  %-16s %s", name, shown(values))  # with --verbose
    if absent := sorted(scores.per_class.keys() - present.keys()):
        log.info("  without a test object: %s", ", ".join(absent))
    if task == "voc" and present and absent:
        factor = len(scores.per_class) / len(present)
        means = {name: x if x is None else x * factor for name, x in scores.metrics.items()}
        message = "  %d classes without a test object count 0 above; over the %d others %s"
        log.info(message, len(absent), len(present), shown(means))


def _is_absent(values: dict[str, float | None]) -> bool:
    return all(value is None for value in values.values())


def _describe(options: Options, plan: list[PlannedRun]) -> None:
    """Print the plan for --dry-run."""
    if not distributed.is_main():
        return
    first = plan[0]
    job, settings = first.job, first.job.recipe
    log.debug("%s", settings.to_yaml())  # with --verbose
    ref, engine = first.backbone.ref, first.config["engine"]
    images = _images_per_process(first)
    sizes = {
        kind: f"{part.name}: {len(part.samples):,} images, {len(part.class_names)} classes"
        for kind, part in (("train", job.train), ("test", job.test))
    }
    finished = [p.run.folder for p in plan if p.run.state == "finished"]
    show_plan(
        {
            "recipe": f"{settings.name}, departures from it are named beside each run",
            **sizes,
            "checkpoint": f"{ref.path}: {ref.format}, {len(first.backbone.tensors)} of 265 "
            f"tensors, {ref.sha256[:16] or '-'}",
            "device": f"{first.config['processes']} x {job.device}, {images} images of a batch and "
            f"{job.workers} data workers each, engine {engine}",
            "memory": _memory(settings, images, save_memory=job.save_memory),
            "time": took(finished) or _time(settings, options.task),
            "disk": f"{free_disk(options.out)}; a run keeps about 1 GiB",
        },
        [(p.run.state, f"{p.run.folder}  {'; '.join(p.job.recipe.departures)}") for p in plan],
        each=f"{settings.SOLVER.MAX_ITER:,} iterations x {settings.SOLVER.IMS_PER_BATCH} images",
    )


def _memory(settings: Recipe, images: int, *, save_memory: bool) -> str:
    side = max(settings.INPUT.MIN_SIZE_TRAIN)
    need = batch.memory_gib(settings, images, save_memory=save_memory)
    if need is None:
        return f"not known for images of {side} px"
    less = batch.memory_gib(settings, images, save_memory=True) or need
    hint = f"; {less:.1f} with --save-memory" if less < need else ""
    return f"about {need:.1f} GiB each: {images} images of {side} px{hint}"


def _time(settings: Recipe, task: str) -> str:
    """Return how long a run takes by the published speeds."""
    pace = batch.iteration_s(settings, task)
    if pace is None:
        side = max(settings.INPUT.MIN_SIZE_TRAIN)
        return f"not known for images of {side} px; the log gives an ETA"
    iterations = settings.SOLVER.MAX_ITER
    return (
        f"about {duration(iterations * pace)} a run on 8 V100: {iterations:,} iterations x "
        f"{pace:.3g} s (Detectron2's MODEL_ZOO.md)"
    )
