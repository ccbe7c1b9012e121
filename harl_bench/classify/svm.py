"""Protocols `svm` and `svm-lowshot`: a linear SVM a class on pooled feature maps, as on VOC2007.

A vector is divided by its length. `svm` takes each class's cost by 3-fold cross-validation on
average precision over train + val, where difficult images count as negative. `svm-lowshot` trains
on k images with the class and 19 k without it (of 20 classes), drawn `samples` times. It takes the
cost of each k by the mean of its scores on the TEST images, as the published script does. AP is the
area under the interpolated precision-recall curve, without the images that are difficult for the
class.
Source: Goyal et al. 2019 (1905.01235) and VISSL, as mmselfsup's tools/benchmarks/classification/
svm_voc07 runs them (7f1dbc9).

Everything is scikit-learn's LinearSVC, as published, in coordinates of the rows' own span: a
QR decomposition of the rows leaves all their products as they are and makes them a triangle, so the
same solver passes over a third of the numbers. Only the selected cost is fitted to all rows.

Letters: N images, D features, C classes, S samples, K shots, A costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harl_bench.classify import multilabel
from harl_bench.classify.draws import over_draws
from harl_bench.classify.features import Features
from harl_bench.classify.linear_svm import (
    Array,
    cross_validated,
    few_shots,
    fitted,
    rotated,
    signs_of,
)
from harl_bench.classify.outcome import Outcome, Scored
from harl_bench.classify.protocol import LowshotSvm, Svm
from harl_bench.classify.stored import FeatureRows
from harl_bench.core.average_precision import Integers
from harl_bench.core.errors import DataError
from harl_bench.core.files import write_json
from harl_bench.core.progress import MetricsFile, Tracker, log, read_metrics

SMALL = 1e-5  # added to a vector's length before the division
METRICS = "metrics.jsonl"


def run(
    features: Features, classes: list[str], settings: Svm, *, folder: Path, seed: int, jobs: int
) -> Outcome:
    """Select every class's cost by cross-validation, fit all of train + val, answer for test.

    Args:
        folder: the run folder; metrics.jsonl has a line for each class and cost, and a run that was
            stopped goes on behind them.
        seed: of the solver's random order of rows.
        jobs: processes.

    Raises:
        DataError: a class has fewer images than there are folds.
    """
    rows, present = _training(features, len(classes))
    require(present, classes, settings)
    rows, axes = rotated(rows)
    machine = {"max_iter": settings.max_iter, "seed": seed}
    tasks = {
        (name, cost): (rows, signs_of(present[:, c]), cost, settings.folds, machine)
        for (c, name), cost in product(enumerate(classes), settings.costs)
    }
    done = _resumed(folder, ("class", "cost"), cross_validated, tasks, jobs, "SVM costs")
    by_class = [[done[name, cost]["ap"] for cost in settings.costs] for name in classes]
    costs = [settings.costs[int(np.argmax(row))] for row in by_class]
    capped = sum(row["capped"] for row in done.values())
    selection = {
        "metric": "average precision, cross-validated",
        "cost": dict(zip(classes, costs, strict=True)),
        "cross_validated": dict(zip(classes, map(max, by_class), strict=True)),
        "capped_fits": capped,
    }
    write_json(folder / "selection.json", selection)
    log.info("%d of %d fits stopped at max_iter", capped, settings.folds * len(tasks))
    fits = [(rows, signs_of(present[:, c]), cost, machine) for c, cost in enumerate(costs)]
    weights, biases = zip(*_parallel(fitted, fits, jobs, "SVMs"), strict=True)
    test, truth = _test(features, len(classes))
    answers = test @ (axes @ np.stack(weights, axis=1)) + np.array(biases)
    generator = np.random.default_rng(seed)
    scored = multilabel.scored(answers, truth, classes, generator, "area")
    logits = answers.astype(np.float32)
    return Outcome(features.splits["test"], logits, truth, selection, scored=scored)


def run_lowshot(
    features: Features,
    classes: list[str],
    settings: LowshotSvm,
    *,
    folder: Path,
    seed: int,
    jobs: int,
) -> Outcome:
    """Fit every sample of every k at every cost, and take the cost of a k by the test scores.

    Args:
        folder, jobs: as of `run`; metrics.jsonl has a line for each sample, k and class.
        seed: decides the samples.

    Raises:
        DataError: a class has fewer images than the largest k.
    """
    rows, present = _training(features, len(classes))
    require(present, classes, settings)
    test, truth = _test(features, len(classes))
    machine = {"max_iter": settings.max_iter, "seed": seed}
    tasks = {}
    for sample, k, c in product(range(settings.samples), settings.shots, range(len(classes))):
        drawn = draw(
            present[:, c], k, len(classes) - 1, np.random.default_rng((seed, sample, k, c))
        )
        about = (rows, present[:, c], drawn, test, truth[:, c], settings.costs, machine)
        tasks[sample, k, classes[c]] = about
    done = _resumed(folder, ("sample", "k", "class"), few_shots, tasks, jobs, "SVMs of few images")
    by_class = [
        [[done[s, k, name]["ap"] for name in classes] for k in settings.shots]
        for s in range(settings.samples)
    ]
    # [S, K, A], without classes that no test image shows: null in a line that was read again
    ap = np.nanmean(np.array(by_class, dtype=np.float64), axis=2)
    best = ap.mean(axis=0).argmax(axis=1)
    scored, draws = Scored({}, {}, {}, "area"), {}
    for i, k in enumerate(settings.shots):
        values = ap[:, i, best[i]]
        draws[f"k{k}/mAP"] = values.tolist()
        scored.metrics[f"k{k}/mAP"] = float(values.mean())
        scored.metrics[f"k{k}/sd"] = float(values.std())  # of the samples, as published
        if bounds := over_draws(values):
            scored.intervals[f"k{k}/mAP"] = bounds
    selection = {
        "metric": "mAP of the test images, mean over the samples",
        "cost": {f"k{k}": settings.costs[best[i]] for i, k in enumerate(settings.shots)},
        "draws": draws,
    }
    write_json(folder / "selection.json", selection)
    rows_of_test = features.splits["test"]
    none = np.zeros((len(rows_of_test), 0), dtype=np.float32)
    return Outcome(rows_of_test, none, truth, selection, scored=scored)


def normalised(features: FeatureRows) -> Array:
    """Return float64 rows of length 1 (a little less, by SMALL)."""
    rows: Array = features[:].cpu().numpy().astype(np.float64)
    rows /= (np.linalg.norm(rows, axis=1) + SMALL)[:, None]
    return rows


def draw(present: Integers, k: int, others: int, generator: np.random.Generator) -> Integers:
    """Return k rows with a class and others * k without it, fewer where there are no more.

    Images in which the class is difficult (-1) are in neither.
    """
    drawn = []
    for value, count in ((1, k), (0, others * k)):
        rows = np.flatnonzero(present == value)
        drawn.append(generator.choice(rows, min(count, len(rows)), replace=False))
    return np.concatenate(drawn)


def _training(features: Features, classes: int) -> tuple[Array, Integers]:
    """Return the rows of train and val in the order of their paths, and their labels [N, C]."""
    joined = np.sort(np.concatenate([features.splits["train"], features.splits["val"]]))
    features.splits["trainval"] = joined
    rows, labels = features.read("trainval", torch.device("cpu"))
    return normalised(rows), multilabel.flags(labels.numpy(), classes)


def _test(features: Features, classes: int) -> tuple[Array, Integers]:
    rows, labels = features.read("test", torch.device("cpu"))
    return normalised(rows), multilabel.flags(labels.numpy(), classes)


def require(present: Integers, classes: list[str], settings: Svm) -> None:
    """Raise a DataError for a class with fewer training images than folds or shots."""
    counts = (present == 1).sum(axis=0)
    fewest, name = int(counts.min()), classes[int(counts.argmin())]
    if isinstance(settings, LowshotSvm):
        least, unit, value, usable = max(settings.shots), "shots", f"shots=[{fewest}]", fewest > 0
    else:
        least, unit, value, usable = settings.folds, "folds", f"folds={fewest}", fewest > 1
    if fewest < least:
        text = f"{name} has {fewest} training images, fewer than the {least} {unit}"
        raise DataError(text, next=f"add {value}" if usable else "add images of that class")


def _resumed(
    folder: Path,
    keys: tuple[str, ...],
    work: Callable[..., dict[str, Any]],
    tasks: dict[Any, tuple[Any, ...]],
    jobs: int,
    what: str,
) -> dict[Any, dict[str, Any]]:
    """Return the result of every task, from metrics.jsonl where it has a line, else computed."""
    path = folder / METRICS
    lines = {tuple(row.get(key) for key in keys): row for row in read_metrics(path)}
    done = {name: lines[name] for name in tasks if name in lines}
    metrics = MetricsFile(path, resume_step=sys.maxsize)
    remaining = [name for name in tasks if name not in done]
    results = _parallel(work, [tasks[name] for name in remaining], jobs, what, len(done))
    for name, result in zip(remaining, results, strict=True):
        done[name] = result
        metrics.append(step=len(done), **dict(zip(keys, name, strict=True)), **result)
    return done


def _parallel(
    work: Callable[..., Any], tasks: list[tuple[Any, ...]], jobs: int, what: str, done: int = 0
) -> Iterator[Any]:
    """Yield the results in order, as they come; the processes share the arrays of rows."""
    from sklearn.utils.parallel import Parallel, delayed

    with Tracker(what, done + len(tasks), start=done, unit="fits") as tracker:
        pool = Parallel(n_jobs=jobs, return_as="generator")
        for result in pool(delayed(work)(*task) for task in tasks):
            yield result
            tracker.advance()
