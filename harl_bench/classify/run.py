"""The command `harl-bench classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harl_bench.core.errors import DataError
from harl_bench.core.options import COMMON, PROTOCOL, Data, Device, DryRun, Fresh, Net, Out, Seeds, Workers
from harl_bench.core.progress import duration, log, log_file

if TYPE_CHECKING:
    from harl_bench.classify.datasets import DataSet
    from harl_bench.classify.features import Features
    from harl_bench.classify.linear import Outcome
    from harl_bench.classify.protocol import Protocol
    from harl_bench.classify.splits import Rows
    from harl_bench.convert.read import Backbone
    from harl_bench.core.results import Run


def classify(
    checkpoint: Annotated[str, Parameter(help='Checkpoint of a ResNet-50, or "random".')],
    /,
    *overrides: Annotated[str, Parameter(help="key=value changes to the protocol, e.g. image_size=96")],
    data: Data,
    dataset: Annotated[
        str, Parameter(group=COMMON, help="Name of the set; folder: train/CLASS, test/CLASS.")
    ] = "folder",
    protocol: Annotated[str, Parameter(group=PROTOCOL, help="A protocol's name, or a YAML file.")] = "linear",
    seeds: Seeds = [0],  # noqa: B006  (cyclopts shows it)
    out: Out = Path("runs"),
    net: Net = None,
    device: Device = "auto",
    workers: Workers = 2,
    allow_unreadable: Annotated[
        bool, Parameter(group=COMMON, negative="", help="Go on with more than 1 % unreadable pictures.")
    ] = False,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Measure a frozen ResNet-50 on image classification.

    Features are extracted once and kept below --out; a finished run is left alone.

    Try:

        harl-bench classify byol.pth --data flowers --protocol linear --seeds 0 1 2

        harl-bench classify random --data toy/classify --protocol linear-toy
    """
    from harl_bench.classify import protocol as protocols
    from harl_bench.classify.datasets import DATASETS
    from harl_bench.convert.read import read_backbone
    from harl_bench.core.lookup import lookup
    from harl_bench.core.results import open_run

    name, settings, departures = protocols.load(protocol, overrides)
    pictures = lookup(DATASETS, dataset, "data set")(data)
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in pictures.splits.items())
    log.info("%s: %d classes, %s pictures", pictures.name, len(pictures.classes), sizes)
    for seed in dict.fromkeys(seeds):
        backbone = read_backbone(checkpoint, net=net, seed=seed)
        run = open_run(
            out, task="classify", dataset=pictures.name, protocol=name, checkpoint=backbone.ref, seed=seed,
            config=settings.model_dump(), data_fingerprint=pictures.fingerprint, fresh=fresh, dry_run=dry_run,
        )  # fmt: skip
        if run.state == "finished" and not fresh:
            log.info("already finished: %s", run.folder)
            continue
        if dry_run:
            log.info("would measure seed %d (%s) into %s (--dry-run)", seed, run.state, run.folder)
            continue
        with run.locked(), log_file(run.folder / "log.txt"):
            _measure(
                run, pictures, backbone, settings, seed=seed, protocol=name, departures=departures, device=device,
                cache=out / "features", workers=workers, allow_unreadable=allow_unreadable,
            )  # fmt: skip
    if dry_run:
        for key, value in settings.model_dump().items():
            log.info("  %s: %s", key, value)


def _measure(
    run: Run, pictures: DataSet, backbone: Backbone, settings: Protocol, *, seed: int, protocol: str,
    departures: list[str], device: str, cache: Path, workers: int, allow_unreadable: bool,
) -> None:  # fmt: skip
    """One run: features, selection, refit, test, result."""
    import time

    import yaml

    from harl_bench.classify import features, linear
    from harl_bench.classify.pixels import Transform
    from harl_bench.core import manifest
    from harl_bench.core.results import write_bytes
    from harl_bench.nn import runtime

    began, started = time.monotonic(), manifest.now()
    where = runtime.device(device)
    write_bytes(run.folder / "config.yaml", yaml.safe_dump(settings.model_dump(), sort_keys=False).encode())
    transform = Transform(
        settings.image_size, settings.short_side_px or settings.image_size,
        backbone.input.input_format, backbone.input.pixel_mean, backbone.input.pixel_std,
    )  # fmt: skip
    folder = features.extract(
        pictures, backbone, cache, transform=transform, precision=settings.precision,
        batch_size=256 if where.type == "cuda" else 64, device=where, workers=workers,
        allow_unreadable=allow_unreadable,
    )  # fmt: skip
    store = features.Features(folder, pictures, pictures.divided(seed, settings.val_share))
    _demand_classes(store, pictures)
    outcome = linear.run(
        store, len(pictures.classes), strengths=linear.grid(settings.low, settings.high, settings.count),
        eps=settings.eps, device=where, folder=run.folder,
    )  # fmt: skip
    _write(
        run, pictures, backbone, settings, store, outcome, seed=seed, protocol=protocol, departures=departures,
        started=started, wall_s=time.monotonic() - began, transform=transform.text(),
    )  # fmt: skip


def _write(
    run: Run, pictures: DataSet, backbone: Backbone, settings: Protocol, store: Features, outcome: Outcome, *,
    seed: int, protocol: str, departures: list[str], started: str, wall_s: float, transform: str,
) -> None:  # fmt: skip
    """Score the answers; write predictions, pictures and, last, result.json."""
    from dataclasses import asdict

    import numpy as np
    from scipy.special import softmax

    from harl_bench.classify import pictures as mistakes
    from harl_bench.classify import scores
    from harl_bench.core import manifest
    from harl_bench.core.results import Result, replacing, write_result
    from harl_bench.core.toy import is_toy
    from harl_bench.nn.runtime import peak_memory_mb

    rows, labels, classes = store.splits["test"], outcome.labels, pictures.classes
    places = scores.ranks(outcome.logits, labels)
    probabilities = softmax(outcome.logits.astype(np.float64), axis=1)
    metrics = scores.score(places, labels, len(classes))
    interval = scores.intervals(places, labels, len(classes), np.random.default_rng(seed))
    with replacing(run.folder / "predictions.npz") as temporary:
        np.savez_compressed(
            temporary, paths=np.array([pictures.paths[row] for row in rows]), labels=labels, classes=np.array(classes),
            predicted=probabilities.argmax(1), confidence=probabilities.max(1).astype(np.float32), place=places,
        )  # fmt: skip
    mistakes.save(run.pictures, pictures.read, rows, labels, probabilities, classes)
    left_out = [f"{len(store.unreadable)} unreadable pictures left out"] if store.unreadable else []
    about = {
        "interval_95": {name: list(bounds) for name, bounds in interval.items()},
        "selection": asdict(outcome.choice),
        "features": {"key": store.folder.name, "transform": transform, "precision": settings.precision},
        "split": {name: {"n": len(r), "sha256": _digest(pictures, r)} for name, r in store.splits.items()},
        "unreadable": store.unreadable,
    }
    result = Result(
        run_id=run.run_id, task="classify", dataset=pictures.name, protocol=protocol, engine="torch",
        method=getattr(backbone, "method", "") or backbone.ref.format, checkpoint=backbone.ref, seed=seed,
        metrics=dict(metrics), per_class=scores.per_class(places, labels, classes), n_test=len(labels),
        data_fingerprint=pictures.fingerprint, toy=is_toy(pictures.root, protocol), config=settings.model_dump(),
        departures=[*departures, *pictures.departures, *left_out], manifest=manifest.collect() | about,
        started=started, wall_s=wall_s, peak_memory_mb=peak_memory_mb(),
    )  # fmt: skip
    path = write_result(run, result)
    shown = ", ".join(f"{k} {v:.2f} ({interval[k][0]:.1f} to {interval[k][1]:.1f})" for k, v in metrics.items())
    log.info("seed %d, %d test pictures, 95 %% interval: %s", seed, len(labels), shown)
    log.info("wrote %s after %s", path, duration(wall_s))


def _demand_classes(store: Features, pictures: DataSet) -> None:
    """After unreadable pictures are left out, every class still needs one to learn from, and test needs one."""
    import numpy as np

    missing = set(range(len(pictures.classes))) - set(np.unique(pictures.labels[store.splits["train"]]).tolist())
    if missing or not len(store.splits["test"]):
        what = f"no readable training picture of {pictures.classes[min(missing)]!r}" if missing else "no test picture"
        raise DataError(what, where=pictures.root, seen=f"{len(store.unreadable)} unreadable", next="replace those")


def _digest(pictures: DataSet, rows: Rows) -> str:
    """sha256 over the paths of a split: names the held-out list a number depends on."""
    import hashlib

    listed = "".join(f"{pictures.paths[row]}\n" for row in rows)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
