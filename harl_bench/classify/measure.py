"""One run: the data set's splits, then whatever the protocol's kind does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harl_bench.classify import features, finetune, heads, knn, linear
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.outcome import Outcome, demand_images
from harl_bench.classify.pixels import Transform
from harl_bench.classify.protocol import FinetuneProtocol, HeadsProtocol, Knn, Linear, Settings
from harl_bench.classify.splits import Rows, stratified
from harl_bench.convert.read import Backbone
from harl_bench.core.errors import DataError
from harl_bench.nn import runtime


@dataclass(frozen=True)
class Job:
    """What a run needs besides its settings.

    Args:
        splits: rows of train, val and test.
        cache: folder of feature folders.
        processes: how many extract features together, on a GPU each.
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


def planned(
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
) -> Job:
    """Return a run's job, after every check that is possible before the first image is read.

    Args:
        folder: the run folder.
        gpus: how many to use for features; None: all.

    Raises:
        MachineError: there is no such device.
        UsageError: more neighbours than images.
    """
    hold_out = partial(stratified, share=settings.val_share) if settings.val_share else None
    where = runtime.device("cpu" if gpus == 0 else device)
    transform = Transform(
        settings.image_size,
        settings.short_side_px or settings.image_size,
        backbone.input.input_format,
        backbone.input.pixel_mean,
        backbone.input.pixel_std,
    )
    on_gpu = where.type == "cuda"
    processes = min(gpus or torch.cuda.device_count(), torch.cuda.device_count()) if on_gpu else 1
    job = Job(
        data,
        data.divided(seed, hold_out),
        backbone,
        transform,
        folder,
        cache,
        where,
        seed,
        runtime.readers(workers, on_gpu=on_gpu, processes=processes),
        processes,
        allow_unreadable,
    )
    if isinstance(settings, Knn):
        knn.demand_bank(
            sorted(settings.neighbours), len(job.splits["train"]) + len(job.splits["val"])
        )
    return job


def measure(job: Job, settings: Settings) -> Outcome:
    """Compute a protocol's answers for the test split."""
    runtime.seed_everything(job.seed)
    runtime.exact_float32()
    runtime.forget_peak_memory()
    return KINDS[settings.kind](job, settings)


def _features(job: Job, settings: Settings) -> features.Features:
    folder = features.extract(
        job.data,
        job.backbone,
        job.cache,
        transform=job.transform,
        precision=settings.precision,
        batch_size=256 if job.device.type == "cuda" else 64,
        device=job.device,
        workers=job.workers,
        allow_unreadable=job.allow_unreadable,
        processes=job.processes,
    )
    store = features.Features(folder, job.data, job.splits)
    unreadable = len(store.unreadable)
    missing = set(range(len(job.data.classes))) - set(
        job.data.labels[store.splits["train"]].tolist()
    )
    if missing:
        what = f"no readable training image of {job.data.classes[min(missing)]!r}"
        raise DataError(
            what, where=job.data.root, seen=f"{unreadable} unreadable", next="mend those"
        )
    demand_images(store.splits["val"], "validation", job.data.root, unreadable)
    demand_images(store.splits["test"], "test", job.data.root, unreadable)
    return store


def _told(outcome: Outcome, store: features.Features) -> Outcome:
    """Which features the answers rest on."""
    outcome.unreadable.extend(store.unreadable)
    outcome.about["features"] = {"key": store.folder.name}
    return outcome


def _linear(job: Job, settings: Linear) -> Outcome:
    store = _features(job, settings)
    outcome = linear.run(
        store,
        len(job.data.classes),
        strengths=linear.grid(settings.low, settings.high, settings.count),
        eps=settings.eps,
        refit_with_val=settings.refit,
        metric=job.data.metric,
        device=job.device,
        folder=job.folder,
    )
    return _told(outcome, store)


def _knn(job: Job, settings: Knn) -> Outcome:
    store = _features(job, settings)
    outcome = knn.run(
        store,
        len(job.data.classes),
        neighbours=sorted(settings.neighbours),
        temperature=settings.temperature,
        headline=settings.headline,
        device=job.device,
    )
    return _told(outcome, store)


def _heads(job: Job, settings: HeadsProtocol) -> Outcome:
    return heads.run(
        job.data,
        job.splits,
        job.backbone,
        lr=list(settings.lr),
        epochs=settings.epochs,
        weight_decay=settings.weight_decay,
        norm=settings.norm,
        schedule=settings.schedule,
        milestones=tuple(epoch / settings.epochs for epoch in settings.milestones),
        **_training(job, settings),
    )


def _finetune(job: Job, settings: FinetuneProtocol) -> Outcome:
    points = finetune.grid(list(settings.lr), list(settings.decay), list(settings.epochs))
    return finetune.run(
        job.data,
        job.splits,
        job.backbone,
        points=points,
        steps=settings.steps,
        halving=settings.halving,
        refit=settings.refit,
        **_training(job, settings),
    )


def _training(job: Job, settings: HeadsProtocol | FinetuneProtocol) -> dict[str, Any]:
    """What both kinds of SGD take."""
    return {
        "batch_size": settings.batch_size,
        "momentum": settings.momentum,
        "crop_area": settings.crop_area,
        "transform": job.transform,
        "precision": settings.precision,
        "seed": job.seed,
        "folder": job.folder,
        "device": job.device,
        "workers": job.workers,
        "allow_unreadable": job.allow_unreadable,
    }


KINDS: dict[str, Callable[[Job, Any], Outcome]] = {
    "linear": _linear,
    "knn": _knn,
    "heads": _heads,
    "finetune": _finetune,
}
