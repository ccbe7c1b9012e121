"""Protocol `linear`: L2-regularised multinomial logistic regression on frozen features.

Where an image may show several classes (VOC2007) each class has a binary classifier of its own
against the rest, without its difficult images, and one lambda serves all: the best by mean AP.
paper: not stated (BYOL); here: as ssl-transfer's linear.py; because its numbers are the field's.
Its lambda is twice ours for the same fit: it asks scikit-learn for two-class softmax.

Fit on train at every lambda, take the best by the set's metric on val (ties go to the larger
lambda), write the choice down, fit again on train + val, and only then open the test features,
once. The loss is a sum over images, so lambda means the same on train + val.
Source: Kornblith et al. 2019, followed by SimCLR (2002.05709 B.8) and BYOL (2006.07733 D).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harl_bench.classify import eigenbasis, scores, solver
from harl_bench.classify.features import Features
from harl_bench.classify.outcome import Outcome, near_edge
from harl_bench.classify.stored import joined
from harl_bench.core.files import write_json
from harl_bench.core.progress import MetricsFile, Tracker, log

EDGE = 3  # the last three lambdas of either end: within two steps of it


def grid(low: float, high: float, count: int) -> list[float]:
    """Return `count` log-spaced values from low to high, ends included."""
    return [float(value) for value in np.logspace(np.log10(low), np.log10(high), count)]


def run(
    features: Features,
    classes: int,
    *,
    regularizations: list[float],
    eps: float,
    refit_with_val: bool = True,
    metric: str = "top1",
    device: torch.device,
    folder: Path,
) -> Outcome:
    """Select on val, refit on train + val, answer for test.

    Memory must hold the features' copy in the solver's basis and, where they are read whole, the
    features, so both are freed as soon as they are no longer needed.

    Args:
        regularizations: the lambdas to try.
        refit_with_val: False where few labels are the point: the selected fit on train answers.
        metric: of the data set, by which val chooses: one of scores.NAMES.
        folder: the run folder, for metrics.jsonl (one line a lambda) and selection.json.
    """
    train, y_train = features.read("train", device)
    val, y_val = features.read("val", device)
    basis = eigenbasis.prepare(train)
    turned, truth = basis.turned(val), y_val.cpu().numpy()
    metrics, accuracy, key = MetricsFile(folder / "metrics.jsonl"), {}, f"val_{metric}"
    with Tracker("logistic regression", len(set(regularizations)), unit="fits") as tracker:

        def judge(optimum: solver.Optimum) -> None:
            logits = turned @ optimum.coefficients.to(turned)
            value = scores.judged(logits.cpu().numpy(), truth, metric)
            accuracy[optimum.regularization] = value
            metrics.append(
                step=len(accuracy),
                strength=optimum.regularization,
                **{key: value},
                objective=optimum.objective,
                certificate=optimum.certificate,
                iterations=optimum.iterations,
                precision=optimum.precision,
            )
            tracker.advance(1, **{key: value})

        path = solver.solve(
            basis, y_train, regularizations, classes=classes, eps=eps, progress=judge
        )
    best = max(accuracy.values())
    regularization = max(s for s in accuracy if accuracy[s] == best)
    last, largest = (
        path[regularizations.index(regularization)],
        max(optimum.certificate for optimum in path),
    )
    if refit_with_val:
        weights = basis.out(last.coefficients)
        del basis, turned, path
        both, y_both = joined([train, val]), torch.cat([y_train, y_val])
        del train, val
        basis = eigenbasis.prepare(both)
        (last,) = solver.solve(
            basis, y_both, [regularization], classes=classes, eps=eps, start=basis.into(*weights)
        )
    selection = {
        "strength": regularization,
        "metric": metric,
        key: best,
        "certificate": last.certificate,
        "at_edge": near_edge(regularization, regularizations, EDGE),
        "largest_certificate": largest,
    }
    write_json(folder / "selection.json", selection)
    log.info("selected lambda %.3g: validation %s %.2f", regularization, scores.NAMES[metric], best)
    if selection["at_edge"]:
        log.warning(
            "lambda %.3g is within %d steps of the grid's end; widen low and high",
            regularization,
            EDGE - 1,
        )
    if (worst := max(largest, last.certificate)) > eps:
        log.warning("an optimum was not reached: certificate %.1e instead of %.1e", worst, eps)
    test, y_test = features.read("test", device)
    logits = basis.turned(test) @ last.coefficients.to(test.device, torch.float32)
    return Outcome(features.splits["test"], logits.cpu().numpy(), y_test.cpu().numpy(), selection)
