"""Run the plan, or print it with --dry-run, and record the results."""

from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes
from harl_bench.core.label import labelled, relabel
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import RESULT, Result, read_result, write_result
from harl_bench.core.toy import is_toy
from harl_bench.detection import batch, recipe
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import MOVING_SCORES
from harl_bench.detection.measure import measure, require_scorable
from harl_bench.detection.plan import Options, PlannedRun, mismatches, plan_runs
from harl_bench.detection.recipe_rules import is_fpn
from harl_bench.detection.scoring import Scores, shown
from harl_bench.nn import distributed

# Seconds an iteration on 8 V100, 16 images, frozen norms, by backbone and masks (D2:MODEL_ZOO.md).
MODEL_ZOO_S = {"C4": {False: 0.551, True: 0.584}, "FPN": {False: 0.210, True: 0.261}}


def run(options: Options) -> None:
    """Plan, check and do every run of seeds x learning rates.

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
            return
        if options.engine == "both":
            from harl_bench.detection.comparison import compare_all

            compare_all([(f"{p.protocol} seed {p.job.seed}", p.job) for p in plan])
            return
        results = [(p, _run_one(p, options)) for p in plan]
        if len(results) > 1 and distributed.is_main():
            for p, scores in results:
                log.info("%s seed %d: %s", p.protocol, p.job.seed, shown(scores))


def _check(plan: list[PlannedRun], options: Options) -> None:
    """Check, also in --dry-run, what would stop a run at its end.

    Raises:
        CheckpointError: --eval-only has no detector to score.
        DataError: a test image cannot be read; a score needs them all.
    """
    for p in plan:
        _weights(p, options)
    new = (p.run.state != "finished" and not any(p.run.checkpoints.glob("*.pth")) for p in plan)
    if options.eval_only or any(new):
        require_scorable(plan[0].job.test, options.evaluator)


def _run_one(p: PlannedRun, options: Options) -> dict[str, float | None]:
    """Do a run unless it is finished, and return its scores."""
    name = f"{options.task} {p.protocol} {p.backbone.ref.name} seed {p.job.seed}"
    if p.run.state == "finished" and not options.eval_only:
        result = read_result(p.run.folder / RESULT)
        scores_text = shown(result.metrics, result.metric)
        log.info("%s: finished before, in %s: %s", name, p.run.folder, scores_text)
        if distributed.is_main():
            relabel(p.run.folder, options.label)
        return result.metrics
    weights = _weights(p, options)
    arguments = (p.config["engine"], p.job, weights, options.images)
    if not distributed.is_main():  # a launcher's other processes: the first one writes
        measure(*arguments)
        return {}
    with p.run.locked(), log_file(p.run.folder / "log.txt"):
        verb = "continuing" if p.run.state == "unfinished" else "training"
        log.info("%s: %s, in %s", name, verb, p.run.folder)
        write_bytes(p.run.folder / "config.yaml", p.job.recipe.to_yaml().encode())
        started = manifest.now()
        measured = distributed.launch(measure, int(p.config["processes"]), *arguments)
        assert measured is not None, "the first process scores"
        scores, about = measured
        log.info("%s: %s", name, shown(scores.metrics, scores.metric))
        _log_classes(scores, options.task)
        result = _result(p, options, scores, about, started)
        if weights is None or p.backbone.ref.format == "detector":
            write_result(p.run, result)
            log.info("result in %s", p.run.folder / RESULT)
    return scores.metrics


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
    for part in (p.job.train, test):
        if n := part.faults.get(voc.FROM_0):
            departures.append(f"{part.name}: {n} {voc.FROM_0}")
    if options.scale_lr:
        departures.append("schedule scaled by the linear rule (--scale-lr)")
    departures += mismatches(backbone)
    if unreadable:
        departures.append(f"{len(unreadable)} unreadable training images skipped")
    departures += [f"{test.faults[key]} {key}" for key in MOVING_SCORES if key in test.faults]
    absent, total = sum(map(_is_absent, scores.per_class.values())), len(scores.per_class)
    if options.task == "voc" and absent:
        classes = f"{absent} of {total} classes"
        departures.append(f"{classes} have no test object and count 0 in the mean")
    if backbone.ref.format == "detector":
        departures.append("a given detector was scored, nothing was trained (--eval-only)")
    return departures


def _log_classes(scores: Scores, task: str) -> None:
    present = {name: values for name, values in scores.per_class.items() if not _is_absent(values)}
    for name, values in present.items():
        log.info("  %-16s %s", name, shown(values))
    if task == "voc" and present and (absent := len(scores.per_class) - len(present)):
        factor = len(scores.per_class) / len(present)
        means = {name: x if x is None else x * factor for name, x in scores.metrics.items()}
        message = "  %d classes without a test object count 0 above; over the %d others %s"
        log.info(message, absent, len(present), shown(means))


def _is_absent(values: dict[str, float | None]) -> bool:
    return all(value is None for value in values.values())


def _describe(options: Options, plan: list[PlannedRun]) -> None:
    """Print the plan for --dry-run."""
    if not distributed.is_main():
        return
    first = plan[0]
    job, settings = first.job, first.job.recipe
    print(settings.to_yaml())
    print(f"recipe      {settings.name}, departures from it are named beside each run")
    for kind, dataset in (("train", job.train), ("test", job.test)):
        size = f"{len(dataset.samples):,} images, {len(dataset.class_names)} classes"
        print(f"{kind:12}{dataset.name}: {size}")
    ref = first.backbone.ref
    content = f"{len(first.backbone.tensors)} of 265 tensors, {ref.sha256[:16] or '-'}"
    print(f"checkpoint  {ref.path}: {ref.format}, {content}")
    print(f"engine      {first.config['engine']} on {first.config['processes']} x {job.device}")
    images = _images_per_process(first)
    if need := batch.memory_gib(settings, images, save_memory=job.save_memory):
        less = batch.memory_gib(settings, images, save_memory=True) or need
        hint = f"; {less:.1f} with --save-memory" if less < need else ""
        print(f"memory      about {need:.1f} GiB on each GPU for {images} images of 800 px{hint}")
    for p in plan:
        print(f"{p.run.state:12}{p.run.folder}  {'; '.join(p.job.recipe.departures)}")
    remaining = sum(p.run.state != "finished" for p in plan)
    solver = settings.SOLVER
    length = f"{solver.MAX_ITER:,} iterations x {solver.IMS_PER_BATCH} images"
    cost = f"{remaining} of {len(plan)} to do, each {length}"
    if settings.INPUT.MAX_SIZE_TRAIN >= 1200:
        times = MODEL_ZOO_S["FPN" if is_fpn(settings) else "C4"]
        seconds = times[settings.MODEL.MASK_ON] * solver.MAX_ITER * solver.IMS_PER_BATCH / 16
        cost += f"; about {duration(seconds)} on 8 V100 (Detectron2's MODEL_ZOO.md)"
    print(f"cost        {cost}")
    print("nothing was started (--dry-run)")
