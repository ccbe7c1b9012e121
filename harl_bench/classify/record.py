"""Write the files of a run: predictions, splits, images of mistakes and, last, result.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from harl_bench.classify import images, multilabel, scores
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.measure import Evaluation
from harl_bench.classify.outcome import Outcome, Scored
from harl_bench.classify.protocol import Settings
from harl_bench.classify.splits import Rows
from harl_bench.convert.choice import TITLES
from harl_bench.core import manifest
from harl_bench.core.files import replacing, write_bytes
from harl_bench.core.label import labelled
from harl_bench.core.progress import duration, log
from harl_bench.core.results import Result
from harl_bench.core.runs import Run, write_result
from harl_bench.core.toy import is_toy
from harl_bench.nn.runtime import peak_memory_mb


def record(
    run: Run,
    evaluation: Evaluation,
    settings: Settings,
    outcome: Outcome,
    *,
    protocol: str,
    departures: Sequence[str],
    label: str | None = None,
    started: str,
    wall_s: float,
) -> Path:
    """Score the answers, write everything and return the path of result.json."""
    data, backbone, classes = evaluation.data, evaluation.backbone, evaluation.data.classes
    rows, labels = outcome.rows, outcome.labels
    scored = outcome.scored or _scored(outcome, data, np.random.default_rng(evaluation.seed))
    metrics, interval = scored.metrics, scored.intervals
    paths = np.array([data.paths[row] for row in rows])
    if labels.ndim == 2 and outcome.logits.size:
        _save(run.folder, paths=paths, labels=labels, classes=classes, scores=outcome.logits)
        said, margins = expit(outcome.logits), outcome.scored is not None
        images.save_several(run.images, data.read, rows, labels, said, classes, margins=margins)
    elif outcome.logits.size:
        probabilities = softmax(outcome.logits.astype(np.float64), axis=1)
        _save(
            run.folder,
            paths=paths,
            labels=labels,
            classes=classes,
            predicted=probabilities.argmax(1),
            confidence=probabilities.max(1).astype(np.float32),
            place=scores.ranks(outcome.logits, labels),
        )
        images.save(run.images, data.read, rows, labels, probabilities, classes)
    left_out = [*backbone.departures]
    if outcome.unreadable:
        count = len(outcome.unreadable)
        left_out.insert(0, f"{count} unreadable image{'s' * (count > 1)} left out")
    if backbone.input.high_pass:
        left_out.append("the network sees high-pass filtered images, as in its pretraining")
    if backbone.padding == "same":
        left_out.append("the network pads as TensorFlow's SAME, as in its pretraining")
    if backbone.arch != "resnet50":
        left_out.append(f"the network is a {TITLES[backbone.arch]}")
    if (grid := backbone.feature_grid) != 7:
        left_out.append(f"the network keeps its pretraining's strides, feature_grid {grid}")
    about: dict[str, Any] = {
        "interval_95": {name: list(bounds) for name, bounds in interval.items()},
        "selection": outcome.selection,
        "transform": evaluation.transform.text(),
        "precision": settings.precision,
        "split": {
            name: {"n": len(r), "sha256": _listed(run.folder, name, data, r)}
            for name, r in evaluation.splits.items()
        },
        "unreadable": outcome.unreadable,
        **outcome.about,
    }
    result = Result(
        run_id=run.run_id,
        task="classify",
        dataset=data.name,
        protocol=protocol,
        engine="torch",
        method=backbone.method,
        checkpoint=backbone.ref,
        **labelled(label),
        seed=evaluation.seed,
        metrics=dict(metrics),
        metric=scored.metric or ("" if data.metric == "top1" else data.metric),
        per_class=scored.per_class,
        n_test=len(labels),
        data_fingerprint=data.identity,
        contents=run.contents,
        toy=is_toy(data.root, protocol) or backbone.toy,
        config=settings.model_dump(mode="json", exclude={"list"}),
        departures=[*departures, *data.departures, *left_out],
        manifest=manifest.collect() | about,
        started=started,
        wall_s=wall_s,
        peak_memory_mb=peak_memory_mb(),
    )
    path = write_result(run, result)
    text = ", ".join(
        f"{k} {v:.2f}" + (" ({:.1f} to {:.1f})".format(*interval[k]) if k in interval else "")
        for k, v in metrics.items()
    )
    log.info("seed %d, %d test images, 95 %% interval: %s", evaluation.seed, len(labels), text)
    log.info("wrote %s after %s", path, duration(wall_s))
    return path


def _save(folder: Path, **arrays: Any) -> None:
    """Write predictions.npz."""
    with replacing(folder / "predictions.npz") as temporary:
        np.savez_compressed(temporary, **arrays)


def _scored(outcome: Outcome, data: DataSet, generator: np.random.Generator) -> Scored:
    """Return scores and intervals, with a prefix ("k20/top1") where there are several answers."""
    if data.multilabel:
        return multilabel.scored(outcome.logits, outcome.labels, data.classes, generator)
    classes = len(data.classes)
    metrics: dict[str, float] = {}
    interval: dict[str, tuple[float, float]] = {}
    answers = {f"{name}/": logits for name, logits in outcome.named.items()} or {"": outcome.logits}
    for prefix, logits in answers.items():
        ranks = scores.ranks(logits, outcome.labels)
        bounds = scores.intervals(ranks, outcome.labels, classes, generator)
        for name, value in scores.score(ranks, outcome.labels, classes).items():
            if name == "top5" and prefix and int(prefix[1:-1]) < 5:  # neighbours: no five answers
                continue
            if not prefix or name != "mean_per_class" or name == data.metric:
                metrics[prefix + name], interval[prefix + name] = value, bounds[name]
    ranks = scores.ranks(outcome.logits, outcome.labels)
    return Scored(metrics, interval, scores.per_class(ranks, outcome.labels, data.classes))


def _listed(folder: Path, split: str, data: DataSet, rows: Rows) -> str:
    """Return the sha256 over the paths of a split, and write the list of a drawn val split."""
    text = "".join(f"{data.paths[row]}\n" for row in rows).encode("utf-8", "surrogateescape")
    if split == "val" and "val" not in data.splits:
        write_bytes(folder / "val.txt", text)
    return hashlib.sha256(text).hexdigest()
