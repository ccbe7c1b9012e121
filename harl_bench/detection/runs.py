"""The planned runs, done one after the other; what --dry-run prints; the record of a finished
run.
"""

from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError
from harl_bench.core.label import labelled, relabel
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import RESULT, Result, read_result, write_bytes, write_result
from harl_bench.core.toy import is_toy
from harl_bench.detection import batch, recipe
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import MOVING_SCORES
from harl_bench.detection.measure import measure, require_scorable
from harl_bench.detection.plan import Options, Planned, planned
from harl_bench.detection.scoring import Scores, shown
from harl_bench.nn import distributed

# Seconds an iteration on 8 V100, 16 images, frozen norms: D2:MODEL_ZOO.md, by (FPN, masks).
MODEL_ZOO_S = {
    (False, False): 0.551,
    (False, True): 0.584,
    (True, False): 0.210,
    (True, True): 0.261,
}


def run(options: Options) -> None:
    """Check, plan, and do every run of seeds x learning rates.

    Raises:
        BenchError: as the parts do.
    """
    with distributed.joined():
        plan = planned(options)
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
        found = [(p, _done(p, options)) for p in plan]
        if len(found) > 1 and distributed.is_main():
            for p, scores in found:
                log.info("%s seed %d: %s", p.protocol, p.job.seed, shown(scores))


def _check(plan: list[Planned], options: Options) -> None:
    """Find out before anything is trained, and in --dry-run alike, what would stop a run at its
    end.

    Raises:
        CheckpointError: --eval-only has no detector to score.
        DataError: a test image cannot be read; a score needs them all.
    """
    starting = [
        p for p in plan if p.run.state != "finished" and not any(p.run.checkpoints.glob("*.pth"))
    ]
    for p in plan:
        _weights(p, options)
    for test in [p.job.test for p in (plan if options.eval_only else starting)][
        :1
    ]:  # every run has the same one
        require_scorable(test, options.evaluator)


def _done(p: Planned, options: Options) -> dict[str, float | None]:
    """Do a run, or say that it is done; its scores."""
    name = f"{options.task} {p.protocol} {p.backbone.ref.name} seed {p.job.seed}"
    if p.run.state == "finished" and not options.eval_only:
        result = read_result(p.run.folder / RESULT)
        log.info(
            "%s: finished before, in %s: %s",
            name,
            p.run.folder,
            shown(result.metrics, result.metric),
        )
        if distributed.is_main() and not options.dry_run:
            relabel(p.run.folder, options.label)
        return result.metrics
    if not distributed.is_main():  # a launcher's other processes: the first one writes
        measure(p.config["engine"], p.job, _weights(p, options), options.images)
        return {}
    with p.run.locked(), log_file(p.run.folder / "log.txt"):
        log.info(
            "%s: %s, in %s",
            name,
            "continuing" if p.run.state == "unfinished" else "training",
            p.run.folder,
        )
        write_bytes(p.run.folder / "config.yaml", p.job.recipe.to_yaml().encode())
        started = manifest.now()
        processes = int(p.config["processes"])
        measured = distributed.launch(
            measure, processes, p.config["engine"], p.job, _weights(p, options), options.images
        )
        assert measured is not None, "the first process scores"
        scores, about = measured
        log.info("%s: %s", name, shown(scores.metrics, scores.metric))
        _log_classes(scores, options.task)
        result = _result(p, options, scores, about, started)
        if _weights(p, options) is None or p.backbone.ref.format == "detector":
            write_result(p.run, result)
            log.info("result in %s", p.run.folder / RESULT)
    return scores.metrics


def _weights(p: Planned, options: Options) -> Path | None:
    """With --eval-only the detector to score."""
    if not options.eval_only:
        return None
    if p.backbone.ref.format == "detector":
        return Path(options.checkpoint)
    if (path := p.job.folder / "checkpoints" / "model_final.pth").is_file():
        return path
    raise CheckpointError(
        "no trained detector to evaluate", where=p.job.folder, next="leave out --eval-only"
    )


def _result(
    p: Planned, options: Options, scores: Scores, about: dict[str, Any], started: str
) -> Result:
    chosen, test = p.job.recipe, p.job.test
    departures = [*chosen.departures, *p.backbone.departures]
    if mismatch := batch.departure(chosen, recipe.load(options.recipe), scaled=options.scale_lr):
        departures.append(mismatch)
    for part in (p.job.train, test):
        if n := part.faults.get(voc.FROM_0):
            departures.append(f"{part.name}: {n} {voc.FROM_0}")
    if options.scale_lr:
        departures.append("schedule scaled by the linear rule (--scale-lr)")
    if p.backbone.input.high_pass:
        departures.append("the backbone learnt from high-pass filtered images and sees plain ones")
    if p.backbone.feature_grid != 7:
        departures.append(
            f"the backbone learnt with feature_grid {p.backbone.feature_grid} and has "
            "Detectron2's strides"
        )
    if p.backbone.padding == "same":
        departures.append("the backbone learnt with TensorFlow's SAME padding and has Detectron2's")
    if about["unreadable"]:
        departures.append(f"{len(about['unreadable'])} unreadable training images skipped")
    departures += [
        f"{test.faults[fault]} {fault}" for fault in MOVING_SCORES if fault in test.faults
    ]
    if options.task == "voc" and (
        absent := sum(_absent(values) for values in scores.per_class.values())
    ):
        departures.append(
            f"{absent} of {len(scores.per_class)} classes have no test object and count 0 in "
            "the mean"
        )
    if p.backbone.ref.format == "detector":
        departures.append("a given detector was scored, nothing was trained (--eval-only)")
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
        toy=is_toy(test.root, chosen.name) or p.backbone.toy,
        config={
            **p.config,
            "images_per_process": chosen.SOLVER.IMS_PER_BATCH // int(p.config["processes"]),
        },
        departures=departures,
        manifest=manifest.collect(),
        started=started,
        wall_s=round(about["wall_s"], 1),
        peak_memory_mb=round(about["peak_memory_mb"], 1),
    )


def _log_classes(scores: Scores, task: str) -> None:
    there = {name: values for name, values in scores.per_class.items() if not _absent(values)}
    for name, values in there.items():
        log.info("  %-16s %s", name, shown(values))
    if task == "voc" and there and (absent := len(scores.per_class) - len(there)):
        share = len(scores.per_class) / len(there)
        present: dict[str, float | None] = {
            name: value * share for name, value in scores.metrics.items() if value is not None
        }
        log.info(
            "  %d classes without a test object count 0 above; over the %d others %s",
            absent,
            len(there),
            shown(present),
        )


def _absent(values: dict[str, float | None]) -> bool:
    return all(value is None for value in values.values())


def _describe(options: Options, plan: list[Planned]) -> None:
    """What --dry-run prints."""
    if not distributed.is_main():
        return
    first = plan[0]
    job, chosen = first.job, first.job.recipe
    print(chosen.to_yaml())
    print(f"recipe      {chosen.name}, departures from it are named beside each run")
    for kind, dataset in (("train", job.train), ("test", job.test)):
        print(
            f"{kind:12}{dataset.name}: {len(dataset.samples):,} images, "
            f"{len(dataset.class_names)} classes"
        )
    ref = first.backbone.ref
    print(
        f"checkpoint  {ref.path}: {ref.format}, {len(first.backbone.tensors)} of 265 tensors, "
        f"{ref.sha256[:16] or '-'}"
    )
    print(f"engine      {first.config['engine']} on {first.config['processes']} x {job.device}")
    images = chosen.SOLVER.IMS_PER_BATCH // int(first.config["processes"])
    if need := batch.memory_gib(chosen, images, save_memory=job.save_memory):
        less = batch.memory_gib(chosen, images, save_memory=True) or need
        hint = f"; {less:.1f} with --save-memory" if less < need else ""
        print(f"memory      about {need:.1f} GiB on each GPU for {images} images of 800 px{hint}")
    for p in plan:
        print(f"{p.run.state:12}{p.run.folder}  {'; '.join(p.job.recipe.departures)}")
    remaining = sum(p.run.state != "finished" for p in plan)
    solver = chosen.SOLVER
    cost = (
        f"{remaining} of {len(plan)} to do, each {solver.MAX_ITER:,} iterations x "
        f"{solver.IMS_PER_BATCH} images"
    )
    if chosen.INPUT.MAX_SIZE_TRAIN >= 1200:
        seconds = (
            MODEL_ZOO_S["fpn" in chosen.MODEL.BACKBONE.NAME, chosen.MODEL.MASK_ON] * solver.MAX_ITER
        )
        cost += (
            f"; about {duration(seconds * solver.IMS_PER_BATCH / 16)} on 8 V100 (Detectron2's "
            "MODEL_ZOO.md)"
        )
    print(f"cost        {cost}")
    print("nothing was started (--dry-run)")
