"""From a command's options to a plan: recipe, data, weights and machine, all read and checked
against each other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from harl_bench.convert.formats import InputConvention, Net
from harl_bench.convert.read import Backbone, read_backbone
from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef, Run
from harl_bench.detection import batch, engines, folders, names, recipe
from harl_bench.detection.datasets import coco, voc
from harl_bench.detection.datasets.sample import (
    IN_TRAINING,
    Dataset,
    data_root,
    fingerprints,
    for_training,
    joined,
    warn_faults,
)
from harl_bench.detection.engines import Job
from harl_bench.detection.metrics.coco import libraries
from harl_bench.detection.recipe import NEUTRAL, Recipe
from harl_bench.nn import distributed

PIXEL_TOLERANCE = 0.01  # 123.675 and 0.485 * 255 are the same mean


@dataclass(frozen=True)
class Options:
    """The options of `voc` and `coco`; see run.py."""

    task: Literal["voc", "coco"]
    checkpoint: str
    overrides: Sequence[str]
    data: Path | None
    recipe: str
    engine: str
    seeds: Sequence[int]
    out: Path
    net: Net | None
    eval_only: bool
    max_iter: int | None
    rates: Sequence[float] | None
    batch: int | None
    scale_lr: bool
    amp: bool
    workers: int | None
    gpus: int | None
    allow_unreadable: bool
    images: int
    evaluator: str
    dry_run: bool
    fresh: bool
    save_memory: bool = False
    label: str | None = None


@dataclass(frozen=True)
class Planned:
    """A run that may still have to be done."""

    run: Run
    dataset: str
    job: Job
    backbone: Backbone
    protocol: str
    config: dict[str, Any]
    fingerprint: str


def planned(options: Options) -> list[Planned]:
    """Every run of the command, all inputs read and checked against each other."""
    if len(set(options.seeds)) != len(options.seeds) or not options.seeds or min(options.seeds) < 0:
        raise UsageError("--seeds are different whole numbers from 0 on", seen=list(options.seeds))
    if options.scale_lr and not options.batch:
        raise UsageError("--scale-lr goes with --batch", next="--batch 8 --scale-lr")
    if options.rates and len(set(options.rates)) != len(options.rates):
        raise UsageError("--lr are different rates", seen=list(options.rates))
    _check_said_once(options)
    engine = "torchvision" if options.engine == "both" else engines.choose(options.engine)
    if options.engine == "both":
        engines.choose("detectron2")
    if options.task == "coco":
        libraries(options.evaluator)
    world, device = _machine(options.gpus)
    root = data_root(options.data)
    settings = recipe.load(options.recipe, _overrides(options))
    parts = (*settings.DATASETS.TRAIN, *settings.DATASETS.TEST)
    odd = [name for name in parts if not re.fullmatch(r"(voc|coco)_\d{4}_\w+", name)]
    if odd or not settings.DATASETS.TRAIN:
        raise UsageError(
            "data sets are named like voc_2007_trainval or coco_2017_train",
            seen=odd or "DATASETS.TRAIN=()",
        )
    for name in parts:
        if not name.startswith(f"{options.task}_"):
            raise UsageError(
                f"recipe {settings.name} is not for this command",
                seen=name,
                next=f"harl-bench {name.partition('_')[0]}",
            )
    train, test = _datasets(root, settings)
    dataset = names.recorded(test)
    known = [dataset, *(name for name in names.known(test) if name != dataset)]
    known_as = fingerprints(root, (train, test))
    detector = _detector(options)
    backbones: dict[int, Backbone] = {}
    plan = []
    rates: list[float | None] = [*options.rates] if options.rates else [None]
    for rate in rates:
        chosen = _recipe(options, rate, len(test.class_names))
        _check_split(chosen, world)
        for seed in options.seeds:
            if (
                seed not in backbones
            ):  # one file serves all seeds; random weights are each seed's own
                same = (
                    next(iter(backbones.values()), None) if options.checkpoint != "random" else None
                )
                backbones[seed] = (
                    detector
                    or same
                    or read_backbone(options.checkpoint, net=options.net, seed=seed)
                )
            backbone = backbones[seed]
            if not detector:
                _check_convention(backbone, chosen)
            protocol = chosen.name + (f"-lr{chosen.SOLVER.BASE_LR:g}" if rate is not None else "")
            flat = {
                key: value for key, value in _flat(chosen.to_dict()).items() if key not in NEUTRAL
            }
            config = {"engine": engine, "processes": world, "recipe": flat}
            found, config, fingerprint = folders.opened(
                options,
                config,
                task=options.task,
                datasets=known,
                fingerprints=known_as,
                protocol=protocol,
                checkpoint=backbone.ref,
                seed=seed,
                device=device,
            )
            job = Job(
                recipe=chosen,
                tensors=dict(backbone.tensors),
                train=train,
                test=test,
                folder=found.folder,
                seed=seed,
                device=device,
                workers=chosen.DATALOADER.NUM_WORKERS,
                allow_unreadable=options.allow_unreadable,
                evaluator=options.evaluator,
                save_memory=options.save_memory,
            )
            plan.append(Planned(found, dataset, job, backbone, protocol, config, fingerprint))
    for warning in recipe.warnings(plan[0].job.recipe):
        log.warning("%s", warning)
    written = recipe.load(options.recipe)
    for text in dict.fromkeys(
        batch.departure(p.job.recipe, written, scaled=options.scale_lr) for p in plan
    ):
        if text:
            log.warning(
                "%s; --batch %d --scale-lr keeps both",
                text,
                plan[0].job.recipe.SOLVER.IMS_PER_BATCH,
            )
    for part in (train, test):
        warn_faults(part)
    return plan


def _detector(options: Options) -> Backbone | None:
    """With --eval-only, a checkpoint that is a whole detector (of either engine); None if it is a
    backbone.
    """
    path = Path(options.checkpoint)
    if not options.eval_only or not path.is_file():
        return None
    from harl_bench.nn import checkpoint

    payload, _ = checkpoint.read(path)
    model = payload.get("model") if isinstance(payload, dict) else None
    if not isinstance(model, dict) or not any(
        str(key).startswith("proposal_generator.") for key in model
    ):
        return None
    ref = CheckpointRef(
        path=str(path), name=path.stem, sha256=manifest.sha256(path), format="detector"
    )
    iteration = payload.get("iteration")
    about = [f"the detector is of iteration {iteration}"] if isinstance(iteration, int) else []
    return Backbone(tensors={}, ref=ref, input=InputConvention(), departures=about)


def _named(options: Options) -> dict[str, Any]:
    """Return the recipe keys that options stand for, with their values."""
    named = {
        "SOLVER.MAX_ITER": options.max_iter,
        "SOLVER.AMP.ENABLED": True if options.amp else None,
        "DATALOADER.NUM_WORKERS": options.workers,
        "SOLVER.IMS_PER_BATCH": options.batch,
    }
    return {key: value for key, value in named.items() if value is not None}


def _overrides(options: Options) -> list[str]:
    """The options that stand for recipe keys, before the overrides that the user spelled out."""
    return [f"{key}={value}" for key, value in _named(options).items()] + list(options.overrides)


def _check_said_once(options: Options) -> None:
    """Raise a UsageError where an option and an override set the same key: only one of them would
    count.
    """
    named = {*_named(options), *(["SOLVER.BASE_LR"] if options.rates else [])} - NEUTRAL
    twice = [text for text in options.overrides if text.partition("=")[0].strip() in named]
    if twice:
        raise UsageError(
            "an option and an override set the same recipe key",
            seen=twice[0],
            next="leave out one of them",
        )


def _recipe(options: Options, rate: float | None, n_classes: int) -> Recipe:
    """The recipe with everything applied: options, linear rule, one rate of a sweep, the data's
    number of classes.
    """
    overrides = _overrides(options)
    chosen = recipe.load(options.recipe, overrides)
    if options.scale_lr and options.batch:
        solver = recipe.load(options.recipe, options.overrides).SOLVER
        factor = (
            options.batch / solver.IMS_PER_BATCH
        )  # the linear rule, as D2:engine/defaults.py:669-737
        steps = "".join(f"{round(step / factor)}, " for step in solver.STEPS)
        rate = (solver.BASE_LR if rate is None else rate) * factor
        scaled = [
            f"SOLVER.STEPS=({steps})",
            f"SOLVER.WARMUP_ITERS={round(solver.WARMUP_ITERS / factor)}",
        ]
        if options.max_iter is None:
            scaled.append(f"SOLVER.MAX_ITER={round(solver.MAX_ITER / factor)}")
        log.info("linear rule, x %g: SOLVER.BASE_LR=%.10g  %s", factor, rate, "  ".join(scaled))
        overrides += scaled
    if rate is not None:
        overrides.append(f"SOLVER.BASE_LR={rate:.10g}")
    if n_classes != chosen.MODEL.ROI_HEADS.NUM_CLASSES:
        text = "the data have %d classes, recipe %s has %d: the heads get %d"
        log.warning(text, n_classes, chosen.name, chosen.MODEL.ROI_HEADS.NUM_CLASSES, n_classes)
        overrides.append(f"MODEL.ROI_HEADS.NUM_CLASSES={n_classes}")
    return recipe.load(options.recipe, overrides)


def _datasets(root: Path, settings: Recipe) -> tuple[Dataset, Dataset]:
    if len(settings.DATASETS.TEST) != 1:
        raise UsageError("one test set is scored", seen=list(settings.DATASETS.TEST))
    parts = [_read(root, name, settings, scored=False) for name in settings.DATASETS.TRAIN]
    test = _read(root, settings.DATASETS.TEST[0], settings, scored=True)
    train = joined(parts)
    if shared := [file for file in {*train.files} & {*test.files} if not file.endswith(".xml")]:
        test = replace(test, faults=test.faults | {IN_TRAINING: len(shared)})
    if train.class_names != test.class_names:
        raise UsageError("training and test data have different classes", where=root)
    return (for_training(train) if settings.DATALOADER.FILTER_EMPTY_ANNOTATIONS else train), test


def _read(root: Path, name: str, settings: Recipe, *, scored: bool) -> Dataset:
    if name.startswith("voc_"):
        return voc.read(root, name)
    return coco.read(root, name, masks=settings.MODEL.MASK_ON, scored=scored)


def _machine(gpus: int | None) -> tuple[int, str]:
    """(processes, device) of a run."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if distributed.under_launcher():
        return distributed.world_size(), "cuda" if there else "cpu"
    if gpus is not None and gpus > there:
        raise UsageError(
            f"--gpus {gpus}, but {there} are visible", next="--gpus 0 computes on the CPU"
        )
    wanted = there if gpus is None else gpus
    return max(1, wanted), "cuda" if wanted else "cpu"


def _check_split(chosen: Recipe, world: int) -> None:
    batch = chosen.SOLVER.IMS_PER_BATCH
    if batch % world:
        raise UsageError(
            f"{batch} images an iteration cannot be split over {world} GPUs",
            next="--gpus or --batch",
        )


def _check_convention(backbone: Backbone, chosen: Recipe) -> None:
    """Stop when the weights expect other images than the recipe makes: nothing else would ever
    tell.
    """
    if backbone.input.high_pass:
        log.warning(
            "this backbone learnt from high-pass filtered images; detection gives it plain ones"
        )
    if backbone.feature_grid != 7:
        log.warning(
            "this backbone learnt with feature_grid %d; detection has Detectron2's strides",
            backbone.feature_grid,
        )
    if backbone.padding == "same":
        log.warning(
            "this backbone learnt with TensorFlow's SAME padding; detection pads as Detectron2 does"
        )
    told, model = backbone.input, chosen.MODEL
    pairs: list[tuple[str, Any, Any]] = [
        ("INPUT.FORMAT", told.input_format, chosen.INPUT.FORMAT),
        ("MODEL.PIXEL_MEAN", told.pixel_mean, model.PIXEL_MEAN),
        ("MODEL.PIXEL_STD", told.pixel_std, model.PIXEL_STD),
        ("MODEL.RESNETS.STRIDE_IN_1X1", backbone.stride_in_1x1, model.RESNETS.STRIDE_IN_1X1),
    ]
    different = [(key, theirs, ours) for key, theirs, ours in pairs if not _same(theirs, ours)]
    if different:
        seen = ", ".join(
            f"{key} {_text(theirs)} in the checkpoint, {_text(ours)}"
            for key, theirs, ours in different
        )
        fix = " ".join(f"{key}={_text(theirs)}" for key, theirs, _ in different)
        raise CheckpointError(
            f"the checkpoint's input convention is not recipe {chosen.name}'s",
            where=backbone.ref.path,
            seen=seen,
            next=f"add the override {fix}",
        )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(abs(x - y) <= PIXEL_TOLERANCE for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _text(value: Any) -> str:
    return "[" + ",".join(f"{x:g}" for x in value) + "]" if isinstance(value, tuple) else str(value)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"SOLVER.BASE_LR": 0.02, ...}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat
