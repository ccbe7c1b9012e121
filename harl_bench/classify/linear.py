"""Protocol `linear`: L2-regularised multinomial logistic regression on frozen features.

Fit on train at every strength, take the best by the set's metric on val (ties go to the stronger
one), write the choice down, fit again on train + val at that strength, and only then open the test
features, once.
Source: Kornblith et al. 2019 as SimCLR (2002.05709 B.8) and BYOL (2006.07733 D) follow it; the
    selected strength keeps
the sum form of the loss, so it means the same on train + val.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harl_bench.classify import scores, solver
from harl_bench.classify.features import Features
from harl_bench.classify.outcome import Outcome, near_edge
from harl_bench.core.progress import MetricsFile, Tracker, log
from harl_bench.core.results import write_json

EDGE = 3  # the last three strengths of either end: within two steps of it


def grid(low: float, high: float, count: int) -> list[float]:
    """`count` log-spaced strengths from low to high, ends included."""
    return [float(s) for s in np.logspace(np.log10(low), np.log10(high), count)]


def run(
    features: Features,
    classes: int,
    *,
    strengths: list[float],
    eps: float,
    refit_with_val: bool = True,
    metric: str = "top1",
    device: torch.device,
    folder: Path,
) -> Outcome:
    """Select on val, refit on train + val, answer for test.

    Features and their copy in the solver's basis are what memory must hold: what is done with goes
    at once.

    Args:
        refit_with_val: without it, the fit on train that val chose answers: where few labels are
            the point.
        metric: of the data set, by which val chooses: "top1" or "mean_per_class".
        folder: the run folder; metrics.jsonl (one line a strength) and selection.json are written
            there.
    """
    train, y_train = features.read("train", device)
    val, y_val = features.read("val", device)
    basis = solver.prepare(train)
    turned, truth = basis.turned(val), y_val.cpu().numpy()
    metrics, accuracy, key = MetricsFile(folder / "metrics.jsonl"), {}, f"val_{metric}"
    with Tracker("logistic regression", len(set(strengths)), unit="strengths") as tracker:

        def judge(optimum: solver.Optimum) -> None:
            predicted = (turned @ optimum.coefficients.to(turned)).argmax(1).cpu().numpy()
            accuracy[optimum.strength] = scores.accuracy(predicted, truth, metric)
            metrics.append(
                step=len(accuracy),
                strength=optimum.strength,
                **{key: accuracy[optimum.strength]},
                objective=optimum.objective,
                certificate=optimum.certificate,
                iterations=optimum.iterations,
                precision=optimum.precision,
            )
            tracker.advance(1, **{key: accuracy[optimum.strength]})

        path = solver.solve(basis, y_train, strengths, classes=classes, eps=eps, progress=judge)
    best = max(accuracy.values())
    strength = max(s for s in accuracy if accuracy[s] == best)
    last, largest = path[strengths.index(strength)], max(optimum.certificate for optimum in path)
    if refit_with_val:
        weights = basis.out(last.coefficients)
        del basis, turned, path
        whole, y_whole = torch.cat([train, val]), torch.cat([y_train, y_val])
        del train, val
        basis = solver.prepare(whole)
        (last,) = solver.solve(
            basis, y_whole, [strength], classes=classes, eps=eps, start=basis.into(*weights)
        )
    selection = {
        "strength": strength,
        "metric": metric,
        key: best,
        "certificate": last.certificate,
        "at_edge": near_edge(strength, strengths, EDGE),
        "largest_certificate": largest,
    }
    write_json(folder / "selection.json", selection)
    log.info("selected lambda %.3g: validation %s %.2f", strength, scores.NAMES[metric], best)
    if selection["at_edge"]:
        log.warning(
            "lambda %.3g is within %d steps of the grid's end; widen strengths", strength, EDGE - 1
        )
    if (worst := max(largest, last.certificate)) > eps:
        log.warning("an optimum was not reached: certificate %.1e instead of %.1e", worst, eps)
    test, y_test = features.read("test", device)
    logits = basis.turned(test) @ last.coefficients.to(test)
    return Outcome(features.splits["test"], logits.cpu().numpy(), y_test.cpu().numpy(), selection)
