"""Protocol `linear-fewshot`: the solver of `linear` on k images of each class, drawn several times.

Each draw takes the lambda that is best on val (ties go to the larger one) and answers for test with
the same fit. Only then, with every choice on disk, the test features are read, once.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch

from harl_bench.classify import draws, eigenbasis, scores, solver
from harl_bench.classify.features import Features
from harl_bench.classify.outcome import Outcome, Scored
from harl_bench.core.files import write_json
from harl_bench.core.progress import Tracker, log


def run(
    features: Features,
    classes: int,
    *,
    shots: tuple[int, ...],
    repeats: int,
    regularizations: list[float],
    eps: float,
    metric: str,
    seed: int,
    device: torch.device,
    folder: Path,
) -> Outcome:
    """Draw, fit, select on val, answer for test; scores are means over the draws.

    Args:
        shots: images of each class.
        repeats: draws of each.
        regularizations: the lambdas to try.
        metric: of the data set, by which val chooses.
        seed: decides the draws.
        folder: the run folder, for selection.json.
    """
    train, labels = features.read("train", device)
    val, y_val = features.read("val", device)
    y_train, truth = labels.cpu().numpy(), y_val.cpu().numpy()
    rows = np.arange(len(y_train))
    fits: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    selection: list[dict[str, float]] = []
    with Tracker("few-shot regressions", len(shots) * repeats, unit="paths") as tracker:
        for k, draw in product(shots, range(repeats)):
            few = draws.per_class(y_train, rows, k, np.random.default_rng((seed, draw, k)))
            if draw == 0 and len(few) < k * classes:
                log.warning("some classes have fewer than %d training images; all are taken", k)
            basis = eigenbasis.prepare(train[few])
            path = solver.solve(basis, labels[few], regularizations, classes=classes, eps=eps)
            turned, best, value = basis.turned(val), path[0], -1.0
            for optimum in sorted(path, key=lambda optimum: -optimum.regularization):
                answers = turned @ optimum.coefficients.to(turned)
                accuracy = scores.judged(answers.cpu().numpy(), truth, metric)
                if accuracy > value:
                    best, value = optimum, accuracy
            fits[k, draw] = basis.out(best.coefficients)
            about = {"shots": k, "draw": draw, "images": len(few), "strength": best.regularization}
            selection.append({**about, f"val_{metric}": value, "certificate": best.certificate})
            tracker.advance(1, shots=str(k), **{f"val_{metric}": value})
    write_json(folder / "selection.json", {"metric": metric, "draws": selection})
    test, y_test = features.read("test", device)
    expected = y_test.cpu().numpy()
    values: dict[str, list[float]] = {}
    for (k, _), (weights, bias) in fits.items():
        logits = torch.cat([part @ weights + bias for part in test.split(eigenbasis.ROWS)])
        ranks = scores.ranks(logits.cpu().numpy(), expected)
        for name, score in scores.score(ranks, expected, classes).items():
            values.setdefault(f"k{k}/{name}", []).append(score)
    intervals = {name: draws.over_draws(scored) for name, scored in values.items()}
    return Outcome(
        features.splits["test"],
        np.zeros((len(expected), 0), dtype=np.float32),
        expected,
        {"metric": metric, "draws": selection, "scores": values},
        scored=Scored(
            {name: float(np.mean(scored)) for name, scored in values.items()},
            {name: bounds for name, bounds in intervals.items() if bounds},
        ),
    )
