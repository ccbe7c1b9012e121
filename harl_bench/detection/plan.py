"""From a command's options to a plan: recipe, data, weights and devices, checked together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from harl_bench.convert.formats import InputConvention
from harl_bench.convert.read import Backbone, read_backbone
from harl_bench.core import cityscapes as cityscapes_layout
from harl_bench.core import manifest
from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.core.nearby import data_root, within
from harl_bench.core.options import require_consistent, require_single
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef
from harl_bench.core.runs import Run
from harl_bench.detection import batch, engines, folders, names, overrides, recipe
from harl_bench.detection.datasets import cityscapes, coco, voc
from harl_bench.detection.datasets.sample import (
    IN_TRAINING,
    Dataset,
    concatenate,
    contents_of,
    fingerprints,
    for_training,
    warn_faults,
)
from harl_bench.detection.engines import Job
from harl_bench.detection.metrics.cityscapes import library
from harl_bench.detection.metrics.coco import libraries
from harl_bench.detection.options import Options
from harl_bench.detection.recipe import Recipe, deciding
from harl_bench.nn import distributed

PIXEL_TOLERANCE = 0.01  # 123.675 and 0.485 * 255 are the same mean


@dataclass(frozen=True)
class PlannedRun:
    """A run, finished or not, with its inputs."""

    run: Run
    dataset: str
    job: Job
    backbone: Backbone
    protocol: str
    config: dict[str, Any]
    fingerprint: str


def plan_runs(options: Options) -> list[PlannedRun]:
    """Return every run of the command, all inputs read and checked against each other."""
    require_consistent(options.seeds, options.lr, options.batch, scale_lr=options.scale_lr)
    overrides.require_distinct(options)
    engine = "torchvision" if options.engine == "both" else engines.choose(options.engine)
    if options.engine == "both":
        engines.choose("detectron2")
    if options.task == "coco":
        libraries(options.evaluator)
    elif options.task == "cityscapes":
        library()
    world, device = distributed.devices(options.gpus)
    train, test = _datasets(data_root(options.data), overrides.resolve(options), options.task)
    dataset_names = names.result_names(test)
    data_fingerprints = fingerprints(train.root, (train, test))
    contents = contents_of((train, test)) if distributed.is_main() else {}
    if detector := _detector(options):
        require_single(options.seeds, options.lr)
    backbones: dict[int, Backbone] = {}
    plan = []
    rates: list[float | None] = [*options.lr] if options.lr else [None]
    for rate in rates:
        settings = overrides.resolve_run(options, rate, len(test.class_names))
        _check_split(settings, world)
        for seed in options.seeds:
            # One file serves all seeds; random weights are each seed's own.
            key = seed if options.checkpoint == "random" else 0
            if key not in backbones:
                backbones[key] = detector or read_backbone(
                    options.checkpoint, net=options.net, seed=seed
                )
            backbone = backbones[key]
            if not detector:
                _check_convention(backbone, settings)
            suffix = "" if rate is None else f"-lr{settings.SOLVER.BASE_LR:g}"
            protocol = f"{settings.name}{suffix}"
            run, config, fingerprint = folders.resolve_folder(
                options,
                {"engine": engine, "processes": world, "recipe": deciding(settings)},
                task=options.task,
                datasets=dataset_names,
                fingerprints=data_fingerprints,
                contents=contents,
                protocol=protocol,
                checkpoint=backbone.ref,
                seed=seed,
                device=device,
            )
            job = Job(
                recipe=settings,
                tensors=dict(backbone.tensors),
                train=train,
                test=test,
                folder=run.folder,
                seed=seed,
                device=device,
                workers=settings.DATALOADER.NUM_WORKERS,
                allow_unreadable=options.allow_unreadable,
                evaluator=options.evaluator,
                save_memory=options.save_memory,
            )
            dataset = dataset_names[0]
            plan.append(PlannedRun(run, dataset, job, backbone, protocol, config, fingerprint))
    _warn(options, plan)
    return plan


def _warn(options: Options, plan: list[PlannedRun]) -> None:
    job = plan[0].job
    for warning in recipe.warnings(job.recipe) + mismatches(plan[0].backbone):
        log.warning("%s", warning)
    original, scaled = recipe.load(options.recipe), options.scale_lr
    departures = (batch.departure(p.job.recipe, original, scaled=scaled) for p in plan)
    for departure in filter(None, dict.fromkeys(departures)):
        message = "%s; --batch %d --scale-lr keeps both"
        log.warning(message, departure, job.recipe.SOLVER.IMS_PER_BATCH)
    for dataset in (job.train, job.test):
        for departure in dataset.departures:
            log.warning("%s", departure)
        warn_faults(dataset)


def mismatches(backbone: Backbone) -> list[str]:
    """Return what the backbone learnt with and a detector does not have, one sentence each."""
    learnt = {
        "from high-pass filtered images and sees plain ones": backbone.input.high_pass,
        f"with feature_grid {backbone.feature_grid} and has Detectron2's strides": (
            backbone.feature_grid != 7
        ),
        "with TensorFlow's SAME padding and has Detectron2's": backbone.padding == "same",
    }
    return [f"the backbone learnt {how}" for how, applies in learnt.items() if applies]


def _detector(options: Options) -> Backbone | None:
    """Return with --eval-only a checkpoint that is a detector (of either engine), else None."""
    path = Path(options.checkpoint)
    if not options.eval_only or not path.is_file():
        return None
    from harl_bench.nn import checkpoint

    payload, _ = checkpoint.read(path)
    model = payload.get("model") if isinstance(payload, dict) else None
    keys = map(str, model) if isinstance(model, dict) else ()
    if not any(key.startswith("proposal_generator.") for key in keys):
        return None
    sha256 = manifest.sha256(path)
    ref = CheckpointRef(path=str(path), name=path.stem, sha256=sha256, format="detector")
    iteration = payload.get("iteration")
    about = [f"the detector is of iteration {iteration}"] if isinstance(iteration, int) else []
    return Backbone(tensors={}, ref=ref, input=InputConvention(), departures=about)


def _datasets(root: Path, settings: Recipe, task: str) -> tuple[Dataset, Dataset]:
    parts = (*settings.DATASETS.TRAIN, *settings.DATASETS.TEST)
    pattern = r"(voc|coco)_\d{4}_\w+|cityscapes_fine_instance_seg_\w+"
    odd = [name for name in parts if not re.fullmatch(pattern, name)]
    if odd or not settings.DATASETS.TRAIN:
        what = "data sets are named like voc_2007_trainval or coco_2017_train"
        raise UsageError(what, seen=odd or "DATASETS.TRAIN=()")
    if other := [name for name in parts if not name.startswith(f"{task}_")]:
        what, command = f"recipe {settings.name} is not for this command", other[0].split("_")[0]
        raise UsageError(what, seen=other[0], next=f"harl-bench {command}")
    if task == "cityscapes" and not settings.MODEL.MASK_ON:
        hint = "leave out MODEL.MASK_ON=False"
        raise UsageError("Cityscapes is scored by masks", seen="MODEL.MASK_ON False", next=hint)
    if task == "voc" and settings.MODEL.MASK_ON:
        hint = "add the override MODEL.MASK_ON=False"
        raise UsageError("VOC has boxes without masks", seen="MODEL.MASK_ON True", next=hint)
    if len(settings.DATASETS.TEST) != 1:
        raise UsageError("one test set is scored", seen=list(settings.DATASETS.TEST))
    root = _home(root, parts)
    train = concatenate([_read(root, name, settings) for name in settings.DATASETS.TRAIN])
    test = _read(root, settings.DATASETS.TEST[0], settings, scored=True)
    labels = (".xml", cityscapes_layout.INSTANCES)
    if shared := [file for file in {*train.files} & {*test.files} if not file.endswith(labels)]:
        test = replace(test, faults=test.faults | {IN_TRAINING: len(shared)})
    if train.class_names != test.class_names:
        raise UsageError("training and test data have different classes", where=root)
    return (for_training(train) if settings.DATALOADER.FILTER_EMPTY_ANNOTATIONS else train), test


def _home(root: Path, parts: Sequence[str]) -> Path:
    """Return the folder of the data that holds the splits, `root` itself if none does."""
    kind = parts[0].split("_")[0]
    if kind == "voc":
        years = {f"VOC{name.split('_')[1]}" for name in parts}
        return within(root, kind, lambda folder: sum(voc.holds(folder, year) for year in years))
    return within(root, kind, cityscapes_layout.holds) if kind == "cityscapes" else root


def _read(root: Path, name: str, settings: Recipe, *, scored: bool = False) -> Dataset:
    if name.startswith("voc_"):
        part = voc.read(root, name)
    elif name.startswith("cityscapes_"):
        part = cityscapes.read(root, name)
    else:
        part = coco.read(root, name, masks=settings.MODEL.MASK_ON, scored=scored)
    return replace(part, departures=names.departures(part))


def _check_split(settings: Recipe, world: int) -> None:
    total = settings.SOLVER.IMS_PER_BATCH
    if total % world:
        what = f"{total} images an iteration cannot be split over {world} GPUs"
        raise UsageError(what, next="--gpus or --batch")


def _check_convention(backbone: Backbone, settings: Recipe) -> None:
    """Raise a CheckpointError if the weights expect other images than the recipe's."""
    source, model = backbone.input, settings.MODEL
    pairs: list[tuple[str, Any, Any]] = [
        ("INPUT.FORMAT", source.input_format, settings.INPUT.FORMAT),
        ("MODEL.PIXEL_MEAN", source.pixel_mean, model.PIXEL_MEAN),
        ("MODEL.PIXEL_STD", source.pixel_std, model.PIXEL_STD),
        ("MODEL.RESNETS.STRIDE_IN_1X1", backbone.stride_in_1x1, model.RESNETS.STRIDE_IN_1X1),
    ]
    if different := [(k, _text(a), _text(b)) for k, a, b in pairs if not _same(a, b)]:
        raise CheckpointError(
            f"the checkpoint's input convention is not recipe {settings.name}'s",
            where=backbone.ref.path,
            seen=", ".join(f"{k} {a} in the checkpoint, {b}" for k, a, b in different),
            next=f"add the override {' '.join(quote(f'{k}={a}') for k, a, _ in different)}",
        )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(abs(x - y) <= PIXEL_TOLERANCE for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _text(value: Any) -> str:
    return "[" + ",".join(f"{x:g}" for x in value) + "]" if isinstance(value, tuple) else str(value)
