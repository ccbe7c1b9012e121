"""L2-regularised multinomial logistic regression along a path of lambdas, with certificates.

    J(W, b) = sum_i CE(x_i W + b, y_i) + (lambda / 2) ||W||^2,  bias free: scikit-learn's objective
    with C = 1 / lambda

Where an image may show several classes, one binary problem a class is solved instead, all of them
at once in one basis:

    J_c(w, b) = sum_i log(1 + exp(-s_ic (x_i w + b))) + (lambda / 2) ||w||^2,  s_ic = 1 or -1,
    and the rows with s_ic = 0 left out

Letters: N rows, d features, K basis columns, C classes. What makes it fast and exact:

1. The rows are centred and turned into the eigenbasis of their covariance: exact, because the bias
   is free and the penalty does not change under rotation. The Hessian is then nearly diagonal, `h
   s_k^2 + lambda` with s_k the column's length and h the mean of p(1 - p); L-BFGS starts from the
   inverse of that diagonal.
2. The path goes from the largest lambda to the smallest, each start extrapolated in log(lambda).
   This saves about two thirds of the iterations (benchmarks/linear_solver.py) and makes solving
   several at once slower, not faster.
3. Logits are linear along a step, so the line search needs no matrix product: two products an
    iteration in all.
4. Margins against the true class instead of logits: its residual is minus the sum of the others, so
   float32 loses nothing when probabilities approach 1.
5. Stop when ||grad J|| <= eps lambda ||W||: J is lambda-strongly convex in W, so with b optimal
   this bounds the relative error of W by eps and the objective's relative gap by eps^2. The reached
   value is the certificate, of binary problems the largest of theirs. Where float32 cannot reach it
   (small lambdas on data that no hyperplanes separate), float64 finishes the work.
6. Memory is the features (unless they stay in their file) and their turned copy, both float32, and
   three [N, C] arrays. Everything else passes in blocks of rows. In float64 the basis is applied to
   the coefficients instead of the rows, which needs no wider copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from harl_bench.classify import cross_entropy
from harl_bench.classify.eigenbasis import ROWS, Basis
from harl_bench.classify.stored import Stored

EPS = 2e-3  # specification of this project: predictions then agree with the exact optimum's
MEMORY = 10  # pairs of L-BFGS, as in scipy
MAX_ITERS = 2000  # per lambda and precision; tens suffice
# Iterations without a better certificate, after which rounding has won.
PATIENCE = {torch.float32: 15, torch.float64: 200}
MAX_TRIALS = 30  # of one line search
SLOPE = 0.5  # the line search may stop when the slope has fallen to this fraction


@dataclass(frozen=True)
class Optimum:
    """The minimum of J at one lambda."""

    regularization: float  # lambda
    coefficients: Tensor  # [K, C], in the basis; `basis.out` turns them back
    objective: float
    certificate: float  # ||grad J|| / (lambda ||W||)
    iterations: int
    precision: str  # float32, or float64 where float32 did not reach the certificate


def solve(
    basis: Basis,
    labels: Tensor,
    regularizations: Sequence[float],
    *,
    classes: int,
    eps: float = EPS,
    start: Tensor | None = None,
    progress: Callable[[Optimum], None] = lambda optimum: None,
) -> list[Optimum]:
    """Minimise J at each lambda and return the optima in the given order.

    Args:
        basis: `eigenbasis.prepare(features)`. Of features in a file, float64 frees its rows.
        labels: [N] int64 in 0..classes - 1, or [N, classes] of 1 (present), 0 (absent) and -1 (left
            out) for binary problems. A class without both gets coefficients of 0.
        regularizations: the lambdas, in any order.
        eps: bound on the certificate.
        start: [K, C] coefficients, such as `basis.into(weights, bias)` of a fit on fewer rows.
        progress: called after each lambda, from the largest down.
    """
    assert regularizations, "at least one lambda"
    assert min(regularizations) > 0, "lambdas are positive"
    if start is None:
        start = torch.zeros(basis.rows.shape[1], classes, device=basis.rows.device)
    precision, centre = torch.float32, basis.axes.T @ basis.mean
    apart = 1 + max(0.0, (basis.mean.square().sum() - centre.square().sum()).item())
    optima: dict[float, Optimum] = {}
    for regularization in sorted(set(regularizations), reverse=True):
        guess = _extrapolated(list(optima.values()), regularization) if optima else start
        optimum = _descend(
            basis, labels, regularization, guess.to(precision), centre.to(precision), apart, eps
        )
        if optimum.certificate > eps and precision == torch.float32:
            precision = torch.float64  # for the smaller lambdas as well
            if isinstance(basis.features, Stored):  # it reads those, and needs the room of the rows
                basis.rows.untyped_storage().resize_(0)
            iterations = optimum.iterations
            optimum = _descend(
                basis, labels, regularization, optimum.coefficients.double(), centre, apart, eps
            )
            optimum = replace(optimum, iterations=iterations + optimum.iterations)
        optima[regularization] = optimum
        progress(optimum)
    return [optima[value] for value in regularizations]


def _extrapolated(path: list[Optimum], regularization: float) -> Tensor:
    """Return the next point of the path, linear in log(lambda), as W grows on separable data."""
    last = path[-1]
    if len(path) == 1:
        return last.coefficients
    before = path[-2]
    length = math.log(regularization / last.regularization) / math.log(
        last.regularization / before.regularization
    )
    return last.coefficients + min(length, 1.0) * (last.coefficients - before.coefficients)


def _descend(
    basis: Basis,
    labels: Tensor,
    regularization: float,
    w: Tensor,
    centre: Tensor,
    apart: float,
    eps: float,
) -> Optimum:
    """Run L-BFGS from w [K, C] until the certificate holds or no longer falls.

    Args:
        centre: [K - 1] mean of the features, turned; with `apart` (1 + the square of its part
            outside the basis) it turns the gradient's norm into the one in plain, uncentred
            coordinates, where the certificate is stated.
    """
    true = cross_entropy.truth(labels, w.dtype)
    binary = true.is_floating_point()
    penalty = w.new_full((len(w), 1), regularization)
    penalty[-1] = 0  # the bias is free
    margins = cross_entropy.margins(basis, w, true)
    if binary:
        margins.masked_fill_(true == 0, -math.inf)
    else:
        margins.scatter_(1, true, -math.inf)  # keeps the true class out of every sum
    residual = torch.empty_like(margins)
    loss, _, _ = cross_entropy.softmax(margins, None, 0.0, residual, binary)
    if binary:
        spread = reduce(torch.add, ((p * (1 - p)).sum(0) for p in torch.split(residual, ROWS)))
        h = spread.double().clamp(min=1e-12) / len(margins)  # [C]
    else:
        hits = -residual.sum(1, keepdim=True)
        others = reduce(torch.add, ((p * (1 - p)).sum() for p in torch.split(residual, ROWS)))
        spread = others - (hits * (1 + hits)).sum()  # of p (1 - p), true class apart
        h = spread.double() / margins.numel()
    scale = (1 / (h * basis.lengths[:, None] + penalty)).to(w)
    gradient = cross_entropy.gradient(basis, residual, true) + penalty * w
    pairs: list[tuple[Tensor, Tensor, float]] = []
    patience = PATIENCE[w.dtype]
    best, best_at, iteration = math.inf, 0, 0
    while True:
        size = regularization * _dot(w[:-1], w[:-1]) ** 0.5
        plain = gradient[:-1] + centre[:, None] * gradient[-1]
        steepness = (_dot(plain, plain) + apart * _dot(gradient[-1:], gradient[-1:])) ** 0.5
        certificate = steepness / size if size else (math.inf if steepness else 0.0)
        if binary:
            bias = apart * gradient[-1].double().square()
            steep = (plain.double().square().sum(0) + bias).sqrt()
            sizes = regularization * w[:-1].double().square().sum(0).sqrt()
            certificate = float(torch.where(steep > 0, steep / sizes, 0.0).max())
        if certificate < best:
            best, best_at = certificate, iteration
        if certificate <= eps or iteration - best_at >= patience or iteration >= MAX_ITERS:
            objective = loss + size**2 / (2 * regularization)
            return Optimum(
                regularization,
                w,
                objective,
                certificate,
                iteration,
                str(w.dtype).removeprefix("torch."),
            )
        iteration += 1
        step = -_two_loop(gradient, pairs, scale)
        along = cross_entropy.margins(basis, step, true)
        squares = regularization * _dot(step[:-1], step[:-1])
        rate, loss = _line_search(
            margins, along, residual, _dot(gradient, step), _dot(penalty * w, step), squares, binary
        )
        w = w + rate * step
        margins.add_(along, alpha=rate)
        del along  # before the next is made: the largest arrays are [N, C]
        before, gradient = gradient, cross_entropy.gradient(basis, residual, true) + penalty * w
        change = gradient - before
        curvature = rate * _dot(step, change)
        if curvature > 0:  # rounding can break it; exact arithmetic cannot: J is strongly convex
            pairs = [*pairs[1 - MEMORY :], (rate * step, change, 1 / curvature)]


def _line_search(
    margins: Tensor,
    along: Tensor,
    residual: Tensor,
    falling: float,
    linear: float,
    square: float,
    binary: bool,
) -> tuple[float, float]:
    """Find the rate of a step by Newton's method on the slope of J, kept in a bracket.

    The slope of a convex function only rises.

    Args:
        falling: slope at rate 0.
        linear, square: the penalty's part of the slope is linear + rate * square.

    Returns:
        The rate, and the cross-entropy there; `residual` holds the probabilities there.
    """
    low, high, rate, loss = 0.0, math.inf, 1.0, math.inf
    for _ in range(MAX_TRIALS):
        loss, slope, curvature = cross_entropy.softmax(margins, along, rate, residual, binary)
        slope, curvature = slope + linear + rate * square, curvature + square
        if abs(slope) <= SLOPE * abs(falling):
            break
        low, high = (rate, high) if slope < 0 else (low, rate)
        newton = rate - slope / curvature if curvature > 0 else math.inf
        if low < newton < high and newton <= 4 * max(rate, 1.0):
            rate = newton
        else:
            rate = 2 * rate if math.isinf(high) else (low + high) / 2
    return rate, loss


def _two_loop(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]], scale: Tensor) -> Tensor:
    """Return the estimated inverse Hessian times the gradient (Nocedal and Wright, algorithm 7.4).

    Args:
        scale: the diagonal to begin with.
    """
    q, alphas = gradient.clone(), []
    for step, change, inverse in reversed(pairs):
        alphas.append(inverse * _dot(step, q))
        q.sub_(change, alpha=alphas[-1])
    q.mul_(scale)
    for (step, change, inverse), alpha in zip(pairs, reversed(alphas), strict=True):
        q.add_(step, alpha=alpha - inverse * _dot(change, q))
    return q


def _dot(a: Tensor, b: Tensor) -> float:
    """Return the sum of products, row sums added up in float64."""
    return (a * b).sum(1).sum(dtype=torch.float64).item()
