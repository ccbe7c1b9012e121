"""One run: the data set's splits, then the protocol's kind of evaluation on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harl_bench.classify import features, fewshot, finetune, heads, knn, linear, multilabel, svm
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.outcome import Outcome, require_images
from harl_bench.classify.pixels import Transform
from harl_bench.classify.protocol import (
    Fewshot,
    FinetuneProtocol,
    HeadsProtocol,
    Knn,
    Linear,
    LowshotSvm,
    Settings,
    Svm,
)
from harl_bench.classify.splits import Rows, stratified
from harl_bench.convert.read import Backbone
from harl_bench.core.errors import DataError, UsageError
from harl_bench.nn import distributed, runtime

MOST_JOBS = 16  # processes that fit SVMs, half a gigabyte each
SINGLE = ("knn", "heads", "fewshot")  # kinds whose images show one class


@dataclass(frozen=True)
class Evaluation:
    """One data set, network and seed, as a run needs them besides its settings.

    Args:
        splits: rows of train, val and test.
        cache: folder of feature folders.
        processes: how many extract features together on this machine, on a GPU each.
    """

    data: DataSet
    splits: dict[str, Rows]
    backbone: Backbone
    transform: Transform
    folder: Path
    cache: Path
    device: torch.device
    seed: int
    workers: int
    processes: int
    allow_unreadable: bool


def plan(
    data: DataSet,
    backbone: Backbone,
    settings: Settings,
    *,
    folder: Path,
    cache: Path,
    device: str,
    seed: int,
    workers: int | None,
    gpus: int | None,
    allow_unreadable: bool,
) -> Evaluation:
    """Return a run's plan, after every check that is possible before the first image is read.

    Args:
        folder: the run folder.
        gpus: how many to use for features; None: all.

    Raises:
        DataError: a class has fewer images than its SVM needs.
        MachineError: there is no such device.
        UsageError: more neighbours than images, several classes an image where one is needed, or
            a val_share that changes nothing.
    """
    own = "val" in data.splits
    if settings.val_share and (own or _learns_from_val(settings)):
        why = f"{data.name} has a val split of its own" if own else "val is learnt from like train"
        what, seen = f"val_share changes nothing: {why}", f"val_share={settings.val_share}"
        raise UsageError(what, seen=seen, next="leave val_share out")
    hold_out = partial(stratified, fraction=settings.val_share) if settings.val_share else None
    target = runtime.device("cpu" if gpus == 0 else device)
    transform = Transform(
        settings.image_size,
        settings.short_side_px or settings.image_size,
        backbone.input.input_format,
        backbone.input.pixel_mean,
        backbone.input.pixel_std,
        squeezed=isinstance(settings, Svm),
    )
    on_gpu = target.type == "cuda"
    processes = min(gpus or torch.cuda.device_count(), torch.cuda.device_count()) if on_gpu else 1
    if distributed.under_launcher():
        processes = distributed.processes_here()
    splits = data.divided(seed, hold_out)
    if data.multilabel and settings.kind in SINGLE:
        what = f"{settings.kind} needs one class an image"
        raise UsageError(what, seen=data.name, next="--protocol linear or finetune")
    if isinstance(settings, Knn):
        knn.require_bank(sorted(settings.neighbours), len(splits["train"]) + len(splits["val"]))
    if isinstance(settings, Svm):
        labels = data.labels[np.concatenate([splits["train"], splits["val"]])]
        svm.require(multilabel.flags(labels, len(data.classes)), data.classes, settings)
    return Evaluation(
        data=data,
        splits=splits,
        backbone=backbone,
        transform=transform,
        folder=folder,
        cache=cache,
        device=target,
        seed=seed,
        workers=runtime.readers(workers, on_gpu=on_gpu, processes=processes),
        processes=processes,
        allow_unreadable=allow_unreadable,
    )


def _learns_from_val(settings: Settings) -> bool:
    """Return whether train and val are one to a protocol, as nothing is chosen on val."""
    if isinstance(settings, HeadsProtocol):
        return len(settings.lr) == 1
    return isinstance(settings, Knn | Svm)


def measure(evaluation: Evaluation, settings: Settings) -> Outcome:
    """Compute a protocol's answers for the test split."""
    runtime.seed_everything(evaluation.seed)
    runtime.exact_float32()
    runtime.forget_peak_memory()
    return KINDS[settings.kind](evaluation, settings)


def _features(evaluation: Evaluation, settings: Settings) -> features.Features:
    folder = features.extract(
        evaluation.data,
        evaluation.backbone,
        evaluation.cache,
        transform=evaluation.transform,
        precision=settings.precision,
        stage=settings.layer if isinstance(settings, Svm) else None,
        batch_size=256 if evaluation.device.type == "cuda" else 64,
        device=evaluation.device,
        workers=evaluation.workers,
        allow_unreadable=evaluation.allow_unreadable,
        processes=evaluation.processes,
    )
    data = evaluation.data
    store = features.Features(folder, data, evaluation.splits)
    unreadable = len(store.unreadable)
    labels = data.labels[store.splits["train"]]
    for label, name in enumerate(() if data.multilabel else data.classes):
        if label not in labels:
            what, seen = f"no readable training image of {name!r}", f"{unreadable} unreadable"
            raise DataError(what, where=data.root, seen=seen, next="replace those")
    require_images(store.splits["val"], "validation", data.root, unreadable)
    require_images(store.splits["test"], "test", data.root, unreadable)
    return store


def _with_features(outcome: Outcome, store: features.Features) -> Outcome:
    """Add to an outcome which features it used, and which images they lack."""
    outcome.unreadable.extend(store.unreadable)
    outcome.about["features"] = {"key": store.folder.name}
    return outcome


def _linear(evaluation: Evaluation, settings: Linear) -> Outcome:
    store = _features(evaluation, settings)
    outcome = linear.run(
        store,
        len(evaluation.data.classes),
        regularizations=linear.grid(settings.low, settings.high, settings.count),
        eps=settings.eps,
        refit_with_val=settings.refit,
        metric=evaluation.data.metric,
        device=evaluation.device,
        folder=evaluation.folder,
    )
    return _with_features(outcome, store)


def _knn(evaluation: Evaluation, settings: Knn) -> Outcome:
    store = _features(evaluation, settings)
    outcome = knn.run(
        store,
        len(evaluation.data.classes),
        neighbours=sorted(settings.neighbours),
        temperature=settings.temperature,
        headline=settings.headline,
        device=evaluation.device,
    )
    return _with_features(outcome, store)


def _fewshot(evaluation: Evaluation, settings: Fewshot) -> Outcome:
    store = _features(evaluation, settings)
    outcome = fewshot.run(
        store,
        len(evaluation.data.classes),
        shots=settings.shots,
        repeats=settings.draws,
        regularizations=linear.grid(settings.low, settings.high, settings.count),
        eps=settings.eps,
        metric=evaluation.data.metric,
        seed=evaluation.seed,
        device=evaluation.device,
        folder=evaluation.folder,
    )
    return _with_features(outcome, store)


def _svm(evaluation: Evaluation, settings: Svm | LowshotSvm) -> Outcome:
    store = _features(evaluation, settings)
    about: dict[str, Any] = {
        "folder": evaluation.folder,
        "seed": evaluation.seed,
        # --workers 0 stays in one process; each more holds the rows once more.
        "jobs": min(len(os.sched_getaffinity(0)), MOST_JOBS) if evaluation.workers else 1,
    }
    if isinstance(settings, LowshotSvm):
        outcome = svm.run_lowshot(store, evaluation.data.classes, settings, **about)
    else:
        outcome = svm.run(store, evaluation.data.classes, settings, **about)
    return _with_features(outcome, store)


def _heads(evaluation: Evaluation, settings: HeadsProtocol) -> Outcome:
    return heads.run(
        evaluation.data,
        evaluation.splits,
        evaluation.backbone,
        lr=list(settings.lr),
        epochs=settings.epochs,
        weight_decay=settings.weight_decay,
        norm=settings.norm,
        schedule=settings.schedule,
        milestones=tuple(epoch / settings.epochs for epoch in settings.milestones),
        **_training(evaluation, settings),
    )


def _finetune(evaluation: Evaluation, settings: FinetuneProtocol) -> Outcome:
    points = finetune.grid(list(settings.lr), list(settings.decay), list(settings.epochs))
    return finetune.run(
        evaluation.data,
        evaluation.splits,
        evaluation.backbone,
        points=points,
        steps=settings.steps,
        halving=settings.halving,
        refit=settings.refit,
        **_training(evaluation, settings),
    )


def _training(evaluation: Evaluation, settings: HeadsProtocol | FinetuneProtocol) -> dict[str, Any]:
    """Return the arguments of both kinds of SGD."""
    return {
        "batch_size": settings.batch_size,
        "momentum": settings.momentum,
        "crop_area": settings.crop_area,
        "transform": evaluation.transform,
        "precision": settings.precision,
        "seed": evaluation.seed,
        "folder": evaluation.folder,
        "device": evaluation.device,
        "workers": evaluation.workers,
        "allow_unreadable": evaluation.allow_unreadable,
    }


KINDS: dict[str, Callable[[Evaluation, Any], Outcome]] = {
    "linear": _linear,
    "fewshot": _fewshot,
    "knn": _knn,
    "svm": _svm,
    "svm-lowshot": _svm,
    "heads": _heads,
    "finetune": _finetune,
}
