"""Protocol `linear`: L2-regularised multinomial logistic regression on frozen features.

Fit on train at every strength, take the best validation top-1 (ties go to the stronger one), write the choice down,
fit again on train + val at that strength, and only then open the test features, once.
Source: Kornblith et al. 2019 as SimCLR (2002.05709 B.8) and BYOL (2006.07733 D) follow it; the selected strength keeps
the sum form of the loss, so it means the same on train + val.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harl_bench.classify import solver
from harl_bench.classify.features import Features
from harl_bench.classify.outcome import Outcome, near_edge
from harl_bench.core.progress import MetricsFile, Tracker, log
from harl_bench.core.results import write_json

EDGE = 3  # the last three strengths of either end: within two steps of it


@dataclass(frozen=True)
class Choice:
    """The selected strength and what spoke for it."""

    strength: float
    val_top1: float  # percent
    certificate: float  # of the fit that answers for test
    at_edge: bool
    largest_certificate: float  # over the whole grid


def grid(low: float, high: float, count: int) -> list[float]:
    """`count` log-spaced strengths from low to high, ends included."""
    return [float(s) for s in np.logspace(np.log10(low), np.log10(high), count)]


def run(
    features: Features, classes: int, *, strengths: list[float], eps: float, refit_with_val: bool = True,
    device: torch.device, folder: Path,
) -> Outcome:  # fmt: skip
    """Select on val, refit on train + val, answer for test.

    Args:
        refit_with_val: without it, the fit on train that val chose answers: where few labels are the point.
        folder: the run folder; metrics.jsonl (one line a strength) and selection.json are written there.
    """
    train, y_train = features.read("train", device)
    val, y_val = features.read("val", device)
    basis = solver.prepare(train)
    turned = basis.turned(val)
    metrics, accuracy = MetricsFile(folder / "metrics.jsonl"), {}
    with Tracker("logistic regression", len(set(strengths)), unit="strengths") as tracker:

        def judge(optimum: solver.Optimum) -> None:
            hits = (turned @ optimum.coefficients.to(turned)).argmax(1) == y_val
            accuracy[optimum.strength] = 100 * hits.double().mean().item()
            metrics.append(
                step=len(accuracy), strength=optimum.strength, val_top1=accuracy[optimum.strength],
                objective=optimum.objective, certificate=optimum.certificate, iterations=optimum.iterations,
                precision=optimum.precision,
            )  # fmt: skip
            tracker.advance(val_top1=accuracy[optimum.strength])

        path = solver.solve(basis, y_train, strengths, classes=classes, eps=eps, progress=judge)
    best = max(accuracy.values())
    strength = max(s for s in accuracy if accuracy[s] == best)
    near = path[strengths.index(strength)]
    if refit_with_val:
        refit_basis = solver.prepare(torch.cat([train, val]))
        start = refit_basis.into(*basis.out(near.coefficients))
        y_whole = torch.cat([y_train, y_val])
        (last,) = solver.solve(refit_basis, y_whole, [strength], classes=classes, eps=eps, start=start)
    else:
        refit_basis, last = basis, near
    choice = Choice(
        strength=strength, val_top1=best, certificate=last.certificate,
        at_edge=near_edge(strength, strengths, EDGE), largest_certificate=max(o.certificate for o in path),
    )  # fmt: skip
    write_json(folder / "selection.json", asdict(choice))
    _report(choice, eps)
    test, y_test = features.read("test", device)
    logits = refit_basis.turned(test) @ last.coefficients.to(test)
    return Outcome(features.splits["test"], logits.cpu().numpy(), y_test.cpu().numpy(), asdict(choice))


def _report(choice: Choice, eps: float) -> None:
    log.info("selected lambda %.3g: validation top-1 %.2f", choice.strength, choice.val_top1)
    if choice.at_edge:
        log.warning("lambda %.3g is within %d steps of the grid's end; widen strengths", choice.strength, EDGE - 1)
    if (worst := max(choice.largest_certificate, choice.certificate)) > eps:
        log.warning("an optimum was not reached: certificate %.1e instead of %.1e", worst, eps)
