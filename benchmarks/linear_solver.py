"""The solver of protocol `linear` against its rivals, on features of two data sets' sizes.

    python -m benchmarks.linear_solver dtd        # 3,760 x 2,048, 47 classes, all 45 strengths
    python -m benchmarks.linear_solver cifar100   # 50,000 x 2,048, 100 classes, 10, 0.1 and 0.001

Rivals:

- `default`: scikit-learn's default call (tol 1e-4, every strength from zero), as papers call it
- `tight`: scikit-learn in float64 with tol 1e-12 and at most 1,000 iterations, each strength
    started from the last
- `centred`: the same on centred features, which is exact because the bias is free, and much faster
- `scipy`: L-BFGS-B in float64 on the rows in our basis, each strength started from the last,
  stopped by our certificate

All run in one process. Every solver has one thread: with more, scikit-learn's BLAS and OpenMP wait
for each other and lose. Seconds are of the processor, so that others on the machine count less;
ours include the preparation, and so do scipy's. Features are made up: rectified, correlated, with a
falling spectrum. Objective J and certificate ||grad J|| / (lambda ||W||) of all are computed by the
same float64 lines below.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from harl_bench.classify import eigenbasis, solver
from harl_bench.classify.linear import grid

Array = np.ndarray[Any, Any]
WIDTH = 2048


class Size(NamedTuple):
    """The problem; classes lie `apart`, for a score like that on real features."""

    rows: int
    classes: int
    strengths: list[float]
    apart: float


SIZES = {
    "dtd": Size(3760, 47, grid(1e-6, 1e5, 45), 0.14),
    "cifar100": Size(50_000, 100, [10.0, 0.1, 0.001], 0.12),
}


class Solution(NamedTuple):
    """Weights [d, C] and bias [C], float64."""

    weights: Array
    bias: Array


def main() -> None:
    """Run the rivals after one another and print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--rows", type=int, help="fewer rows, for a quick look")
    parser.add_argument("--json", type=Path, help="also write every strength's numbers here")
    parser.add_argument(
        "--rivals",
        nargs="*",
        choices=RIVALS,
        default=list(RIVALS),
        help="those to run (default: all)",
    )
    options = parser.parse_args()
    size = SIZES[options.size]
    size = size._replace(rows=options.rows or size.rows)
    X, y, held, held_labels = features(size)
    torch.set_num_threads(1)
    seconds, judged = {}, {}
    print(
        f"{size.rows:,} x {WIDTH:,}, {size.classes} classes, {len(size.strengths)} strengths, "
        "one thread",
        flush=True,
    )
    for name, fit in {"ours": ours, **{name: RIVALS[name] for name in options.rivals}}.items():
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the default call does not converge, by design
            began = time.process_time()
            solutions = fit(X, y, size)
            seconds[name] = time.process_time() - began
        pairs = zip(solutions, size.strengths, strict=True)
        judged[name] = [
            judge(X, y, held, held_labels, solution, strength) for solution, strength in pairs
        ]
        print(f"{name:<22} {seconds[name]:>9.1f} CPU s", flush=True)
    show(size, seconds, judged)
    if options.json:
        rows = {
            name: [{k: v for k, v in row.items() if k != "said"} for row in rows]
            for name, rows in judged.items()
        }
        about = {"strengths": size.strengths, "cpu_s": seconds, "judged": rows}
        options.json.write_text(json.dumps(about, indent=1))


def features(size: Size) -> tuple[Array, Array, Array, Array]:
    """Features [N, 2048] float32 and labels to fit, and 1,880 rows, as DTD has, to predict."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, WIDTH + 1) ** -0.5
    centres = rng.normal(size=(size.classes, WIDTH)) * size.apart
    mixing, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    mixing = (spectrum[:, None] * mixing).astype(np.float32)

    def drawn(rows: int) -> tuple[Array, Array]:
        labels = rng.permutation(np.arange(rows) % size.classes)
        latent = (centres[labels] + rng.normal(size=(rows, WIDTH))).astype(np.float32)
        return np.maximum(latent @ mixing * 4 + 0.1, 0), labels

    return *drawn(size.rows), *drawn(1880)


def ours(X: Array, y: Array, size: Size) -> list[Solution]:
    """All strengths, preparation included."""
    basis = eigenbasis.prepare(torch.from_numpy(X))
    found = solver.solve(basis, torch.from_numpy(y), size.strengths, classes=size.classes)
    solutions = []
    for optimum in found:
        weights = basis.axes @ optimum.coefficients[:-1].double()
        bias = optimum.coefficients[-1].double() - basis.mean @ weights
        solutions.append(Solution(weights.numpy(), bias.numpy()))
    return solutions


def default(X: Array, y: Array, size: Size) -> list[Solution]:
    """What papers call: float64, tolerance 1e-4, every strength from zero."""
    wide = X.astype(np.float64)
    models = [LogisticRegression(C=1 / strength).fit(wide, y) for strength in size.strengths]
    return [Solution(model.coef_.T, model.intercept_) for model in models]


def tight(X: Array, y: Array, size: Size) -> list[Solution]:
    """The best way to the optimum that scikit-learn offers: strong to weak, each from the last."""
    wide, found = X.astype(np.float64), {}
    model = LogisticRegression(tol=1e-12, max_iter=1000, warm_start=True)
    for strength in sorted(size.strengths, reverse=True):
        model.set_params(C=1 / strength).fit(wide, y)
        found[strength] = Solution(model.coef_.T.copy(), model.intercept_.copy())
    return [found[strength] for strength in size.strengths]


def centred(X: Array, y: Array, size: Size) -> list[Solution]:
    """`tight` on centred features; the bias takes the mean back."""
    mean = X.mean(0, dtype=np.float64)
    return [Solution(W, b - mean @ W) for W, b in tight(X - mean, y, size)]


def scipy(X: Array, y: Array, size: Size) -> list[Solution]:
    """L-BFGS-B in our basis, strong to weak, each from the last, until the certificate is ours."""
    basis = eigenbasis.prepare(torch.from_numpy(X))
    mean, axes, found = basis.mean.numpy(), basis.axes.numpy(), {}
    rows, centre = (X - mean) @ axes, axes.T @ mean
    apart = 1 + max(0.0, float(mean @ mean - centre @ centre))
    w = np.zeros((rows.shape[1] + 1, size.classes))
    for strength in sorted(size.strengths, reverse=True):
        w = _lbfgsb(rows, y, w, strength, centre, apart)
        W = axes @ w[:-1]
        found[strength] = Solution(W, w[-1] - mean @ W)
    return [found[strength] for strength in size.strengths]


def _lbfgsb(rows: Array, y: Array, w: Array, strength: float, centre: Array, apart: float) -> Array:
    """Coefficients [K, C] from w on.

    `centre` and `apart` state the gradient's norm as `solver._descend` does.
    """
    latest: list[tuple[Array, Array]] = []
    each = np.arange(len(y))

    def objective(flat: Array) -> tuple[float, Array]:
        W, b = np.split(flat.reshape(w.shape), [-1])
        logits = rows @ W + b
        logits -= logits.max(1, keepdims=True)
        true = logits[each, y]
        p = np.exp(logits, out=logits)
        total = p.sum(1, keepdims=True)
        p /= total
        p[each, y] -= 1
        gradient = np.concatenate([rows.T @ p + strength * W, p.sum(0, keepdims=True)])
        latest[:] = [(flat.copy(), gradient)]
        loss = float((np.log(total[:, 0]) - true).sum())
        return loss + strength / 2 * float((W**2).sum()), gradient.ravel()

    def certified(flat: Array) -> None:
        if not np.array_equal(latest[0][0], flat):
            objective(flat)
        gradient = latest[0][1]
        plain = gradient[:-1] + centre[:, None] * gradient[-1]
        steepness = np.hypot(np.linalg.norm(plain), apart**0.5 * np.linalg.norm(gradient[-1]))
        if steepness <= solver.EPS * strength * np.linalg.norm(flat.reshape(w.shape)[:-1]):
            raise StopIteration

    options = {
        "maxcor": solver.MEMORY,
        "maxiter": 15_000,
        "maxfun": 20_000,
        "ftol": 0.0,
        "gtol": 0.0,
    }
    fit = minimize(
        objective, w.ravel(), method="L-BFGS-B", jac=True, callback=certified, options=options
    )
    return np.asarray(fit.x).reshape(w.shape)


RIVALS: dict[str, Callable[[Array, Array, Size], list[Solution]]] = {
    "default": default,
    "tight": tight,
    "centred": centred,
    "scipy": scipy,
}


def judge(
    X: Array, y: Array, held: Array, labels: Array, solution: Solution, strength: float
) -> dict[str, Any]:
    """J, certificate, held-out answers and top-1 (percent) of a solution."""
    W, b = solution
    loss, gradient, by_bias = 0.0, strength * W, np.zeros_like(b)
    for i in range(0, len(X), 5000):
        rows, truth = X[i : i + 5000].astype(np.float64), y[i : i + 5000]
        logits = rows @ W + b
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(1, keepdims=True)
        loss += float((np.log(total[:, 0]) - logits[np.arange(len(truth)), truth]).sum())
        p /= total
        p[np.arange(len(truth)), truth] -= 1
        gradient = gradient + rows.T @ p
        by_bias += p.sum(0)
    steepness = np.sqrt((gradient**2).sum() + (by_bias**2).sum())
    said = (held.astype(np.float64) @ W + b).argmax(1)
    return {
        "objective": loss + strength / 2 * float((W**2).sum()),
        "certificate": float(steepness / (strength * np.linalg.norm(W))),
        "top1": 100 * float((said == labels).mean()),
        "said": said,
    }


def show(size: Size, seconds: dict[str, float], judged: dict[str, list[dict[str, Any]]]) -> None:
    """Ratios and what they rest on."""
    mine = judged["ours"]
    print(
        f"{'':<22} {'CPU s':>9} {'ratio':>6} {'worst certificate':>18} {'J above ours at':>16} "
        f"{'same answers':>22}"
    )
    for name, rows in judged.items():
        higher = sum(r["objective"] >= m["objective"] for r, m in zip(rows, mine, strict=True))
        same = [
            100 * float((r["said"] == m["said"]).mean()) for r, m in zip(rows, mine, strict=True)
        ]
        agree = f"{np.mean(same):.2f} %, least {min(same):.1f} %"
        worst = max(row["certificate"] for row in rows)
        print(
            f"{name:<22} {seconds[name]:>9.1f} {seconds[name] / seconds['ours']:>6.1f} "
            f"{worst:>18.1e} {higher:>8} of {len(rows):<4} {agree:>22}"
        )
    print("held-out top-1, certificate by strength")
    print(f"{'lambda':>9}" + "".join(f"{name:>28}" for name in judged))
    for i in range(0, len(size.strengths), 1 if len(size.strengths) < 9 else 4):
        cells = (
            f"{rows[i]['top1']:>17.1f} {rows[i]['certificate']:>10.1e}" for rows in judged.values()
        )
        print(f"{size.strengths[i]:>9.1e}" + "".join(cells))


if __name__ == "__main__":
    main()
