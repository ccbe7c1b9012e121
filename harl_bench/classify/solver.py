"""L2-regularised multinomial logistic regression along a path of strengths, each optimum with a
certificate.

    J(W, b) = sum_i CE(x_i W + b, y_i) + (lambda / 2) ||W||^2,  bias free: scikit-learn's objective
    with C = 1 / lambda

Letters: N rows, d features, K basis columns, C classes, S strengths. What makes it fast and exact:

1. The rows are centred and turned into the eigenbasis of their covariance: exact, because the bias
   is free and the penalty does not change under rotation. The Hessian is then nearly diagonal, `h
   s_k^2 + lambda` with s_k the column's length and h the mean of p(1 - p); L-BFGS starts from the
   inverse of that diagonal.
2. Strengths go from strong to weak, each starting where the path so far points to in log(lambda).
   This saves about two thirds of the iterations (benchmarks/linear_solver.py) and makes solving
   several at once slower, not faster.
3. Logits are linear along a step, so the line search needs no matrix product: two products an
    iteration in all.
4. Margins against the true class instead of logits: its residual is minus the sum of the others, so
   float32 loses nothing when probabilities approach 1.
5. Stop when ||grad J|| <= eps lambda ||W||: J is lambda-strongly convex in W, so with b optimal
   this bounds the relative error of W by eps and the objective's relative gap by eps^2. The reached
   value is the certificate. Where float32 cannot reach it (weak strengths on data that no
   hyperplanes separate), float64 finishes the work.
6. Memory is the features and their turned copy, both float32, and three [N, C] arrays. Everything
   else passes in blocks of rows. In float64 the basis is applied to the coefficients instead of the
   rows, which needs no wider copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

EPS = 2e-3  # specification of this project: predictions then agree with the exact optimum's
MEMORY = 10  # pairs of L-BFGS, as in scipy
MAX_ITERS = 2000  # per strength and precision; tens suffice
PATIENCE = {
    torch.float32: 15,
    torch.float64: 200,
}  # iterations without a better certificate: rounding has won
MAX_TRIALS = 30  # of one line search
SLOPE = 0.5  # the line search may stop when the slope has fallen to this share
CHUNK = 1 << 17  # elements that pass through the softmax at once: they stay in a processor's cache
CUDA_CHUNK = 1 << 27  # ... on a GPU: half a gigabyte each
ROWS = 8192  # rows of one block: 64 MB of 2,048 float32 features
RANK = 1e-13  # directions below this share of the largest variance are rounding noise of float64


@dataclass(frozen=True)
class Basis:
    """Rows in the eigenbasis of their covariance."""

    features: Tensor  # [N, d], as they came
    rows: Tensor  # [N, K] float32: K - 1 directions, then a column of ones (the bias)
    lengths: Tensor  # [K] float64, squared lengths of the columns of `rows`
    mean: Tensor  # [d] float64
    axes: Tensor  # [d, K - 1] float64, orthonormal columns

    def turned(self, features: Tensor) -> Tensor:
        """Other features [M, d] in this basis: [M, K] float32; times coefficients [K, C] they give
        logits.
        """
        mean, axes = self.mean.float(), self.axes.float()
        turned = torch.ones(len(features), axes.shape[1] + 1, device=axes.device)
        for part, rows in zip(torch.split(features, ROWS), torch.split(turned, ROWS), strict=True):
            rows[:, :-1] = (part.float() - mean) @ axes
        return turned

    def logits(self, w: Tensor) -> Tensor:
        """Logits [N, C] of coefficients w [K, C], in the precision of w."""
        if w.dtype == torch.float32:
            return self.rows @ w
        plain, logits = self.axes @ w[:-1], w.new_empty(len(self.features), w.shape[1])
        for part, rows in zip(
            torch.split(self.features, ROWS), torch.split(logits, ROWS), strict=True
        ):
            rows[:] = (part - self.mean) @ plain + w[-1]
        return logits

    def back(self, residual: Tensor) -> Tensor:
        """Turned rows transposed times a residual [N, C]: [K, C], in the precision of the
        residual.
        """
        if residual.dtype == torch.float32:
            return self.rows.T @ residual
        plain = residual.new_zeros(self.features.shape[1], residual.shape[1])
        for part, rows in zip(
            torch.split(self.features, ROWS), torch.split(residual, ROWS), strict=True
        ):
            plain += (part - self.mean).T @ rows
        return torch.cat([self.axes.T @ plain, residual.sum(0, keepdim=True)])

    def into(self, weights: Tensor, bias: Tensor) -> Tensor:
        """Coefficients [K, C] float32 that give the logits of weights [d, C] and bias [C] on these
        rows.
        """
        weights = weights.to(self.axes)
        return torch.cat(
            [self.axes.T @ weights, (bias.to(self.mean) + self.mean @ weights)[None]]
        ).float()

    def out(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [d, C] float32 and bias [C] float32 of coefficients [K, C]."""
        weights = self.axes @ coefficients[:-1].to(self.axes)
        return weights.float(), (coefficients[-1].to(self.mean) - self.mean @ weights).float()


@dataclass(frozen=True)
class Optimum:
    """The minimum of J at one strength."""

    strength: float
    coefficients: Tensor  # [K, C], in the basis; `basis.out` turns them back
    objective: float
    certificate: float  # ||grad J|| / (strength ||W||)
    iterations: int
    precision: str  # float32, or float64 where float32 did not reach the certificate


def prepare(features: Tensor) -> Basis:
    """Centre features [N, d] and turn them into the eigenbasis of their covariance, on the device
    they are on.
    """
    N, d = features.shape
    mean = (
        reduce(
            torch.add, (part.sum(0, dtype=torch.float64) for part in torch.split(features, ROWS))
        )
        / N
    )
    if d >= N:
        centred = features.double() - mean
        power, left = torch.linalg.eigh(centred @ centred.T)
        kept = power > RANK * power[-1]
        axes = (centred.T @ left[:, kept]) / power[kept].sqrt()
    else:
        gram = torch.zeros(d, d, dtype=torch.float64, device=features.device)
        for part in torch.split(features, ROWS):
            single = part.float() - mean.float()
            gram += single.T @ single  # float32 products: any orthonormal basis is exact
        _, axes = torch.linalg.eigh(gram)
    basis = Basis(features, features.new_empty(0), features.new_empty(0), mean, axes)
    rows = basis.turned(features)
    lengths = reduce(
        torch.add, (part.square().sum(0, dtype=torch.float64) for part in torch.split(rows, ROWS))
    )
    return replace(basis, rows=rows, lengths=lengths)


def solve(
    basis: Basis,
    labels: Tensor,
    strengths: Sequence[float],
    *,
    classes: int,
    eps: float = EPS,
    start: Tensor | None = None,
    progress: Callable[[Optimum], None] = lambda optimum: None,
) -> list[Optimum]:
    """Minimise J at each strength; the optima come back in the order the strengths were given.

    Args:
        basis: `prepare(features)`.
        labels: [N] int64 in 0..classes - 1.
        eps: bound on the certificate.
        start: [K, C] coefficients to begin with, e.g. `basis.into(weights, bias)` of a fit on fewer
            rows.
        progress: called after each strength, strong to weak.
    """
    assert strengths, "at least one strength"
    assert min(strengths) > 0, "strengths are positive"
    if start is None:
        start = torch.zeros(basis.rows.shape[1], classes, device=basis.rows.device)
    precision, centre = torch.float32, basis.axes.T @ basis.mean
    apart = 1 + max(0.0, (basis.mean.square().sum() - centre.square().sum()).item())
    optima: dict[float, Optimum] = {}
    for strength in sorted(set(strengths), reverse=True):
        guess = _extrapolated(list(optima.values()), strength) if optima else start
        found = _descend(
            basis, labels, strength, guess.to(precision), centre.to(precision), apart, eps
        )
        if found.certificate > eps and precision == torch.float32:
            precision = torch.float64  # for the weaker strengths as well
            more = _descend(
                basis, labels, strength, found.coefficients.double(), centre, apart, eps
            )
            found = replace(more, iterations=found.iterations + more.iterations)
        optima[strength] = found
        progress(found)
    return [optima[s] for s in strengths]


def _extrapolated(path: list[Optimum], strength: float) -> Tensor:
    """The next point of the path, straight on in log(strength): separable data let W grow just
    so.
    """
    last = path[-1]
    if len(path) == 1:
        return last.coefficients
    before = path[-2]
    share = math.log(strength / last.strength) / math.log(last.strength / before.strength)
    return last.coefficients + min(share, 1.0) * (last.coefficients - before.coefficients)


def _descend(
    basis: Basis,
    labels: Tensor,
    strength: float,
    w: Tensor,
    centre: Tensor,
    apart: float,
    eps: float,
) -> Optimum:
    """L-BFGS from w [K, C] in the precision of w, until the certificate holds or no longer falls.

    Args:
        centre: [K - 1] mean of the features, turned; with `apart` (1 + the square of its part
            outside the basis) it turns the gradient's norm into the one in plain, uncentred
            coordinates, where the certificate is stated.
    """
    true = labels[:, None]
    penalty = w.new_full((len(w), 1), strength)
    penalty[-1] = 0  # the bias is free
    margins = _margins(basis, w, true).scatter_(
        1, true, -math.inf
    )  # -inf keeps the true class out of every sum
    residual = torch.empty_like(margins)
    loss, _, _ = _softmax(margins, None, 0.0, residual)
    hits = -residual.sum(1, keepdim=True)
    others = reduce(torch.add, ((p * (1 - p)).sum() for p in torch.split(residual, ROWS)))
    spread = others - (hits * (1 + hits)).sum()  # of p (1 - p), true class apart
    scale = (1 / (spread.double() / margins.numel() * basis.lengths[:, None] + penalty)).to(w)
    gradient = _gradient(basis, residual, true) + penalty * w
    pairs: list[tuple[Tensor, Tensor, float]] = []
    patience = PATIENCE[w.dtype]
    best, best_at, iteration = math.inf, 0, 0
    while True:
        size = strength * _dot(w[:-1], w[:-1]) ** 0.5
        plain = gradient[:-1] + centre[:, None] * gradient[-1]
        steepness = (_dot(plain, plain) + apart * _dot(gradient[-1:], gradient[-1:])) ** 0.5
        certificate = steepness / size if size else (math.inf if steepness else 0.0)
        if certificate < best:
            best, best_at = certificate, iteration
        if certificate <= eps or iteration - best_at >= patience or iteration >= MAX_ITERS:
            objective = loss + size**2 / (2 * strength)
            return Optimum(
                strength, w, objective, certificate, iteration, str(w.dtype).removeprefix("torch.")
            )
        iteration += 1
        step = -_two_loop(gradient, pairs, scale)
        along = _margins(basis, step, true)
        squares = strength * _dot(step[:-1], step[:-1])
        rate, loss = _line_search(
            margins, along, residual, _dot(gradient, step), _dot(penalty * w, step), squares
        )
        w = w + rate * step
        margins.add_(along, alpha=rate)
        del along  # before the next is made: the largest arrays are [N, C]
        before, gradient = gradient, _gradient(basis, residual, true) + penalty * w
        change = gradient - before
        curvature = rate * _dot(step, change)
        if curvature > 0:  # rounding can break it; exact arithmetic cannot: J is strongly convex
            pairs = [*pairs[1 - MEMORY :], (rate * step, change, 1 / curvature)]


def _margins(basis: Basis, w: Tensor, true: Tensor) -> Tensor:
    """Logits [N, C] minus the true class's."""
    logits = basis.logits(w)
    return logits.sub_(logits.gather(1, true))


def _gradient(basis: Basis, residual: Tensor, true: Tensor) -> Tensor:
    """Gradient [K, C] of the cross-entropy.

    Enters: `residual` [N, C] of wrong classes; leaves: all, rows sum to 0.
    """
    return basis.back(residual.scatter_(1, true, -residual.sum(1, keepdim=True)))


def _line_search(
    margins: Tensor, along: Tensor, residual: Tensor, falling: float, linear: float, square: float
) -> tuple[float, float]:
    """Newton on the slope of J along a step, kept in a bracket: the slope of a convex function only
    rises.

    Args:
        falling: slope at rate 0.
        linear, square: the penalty's part of the slope is linear + rate * square.

    Returns:
        The rate, and the cross-entropy there; `residual` holds the probabilities there.
    """
    low, high, rate, loss = 0.0, math.inf, 1.0, math.inf
    for _ in range(MAX_TRIALS):
        loss, slope, curvature = _softmax(margins, along, rate, residual)
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


def _softmax(
    margins: Tensor, along: Tensor | None, rate: float, residual: Tensor
) -> tuple[float, float, float]:
    """Cross-entropy, its slope and its curvature at margins + rate * along, all [N, C]; fills
    `residual`.

    `residual` receives the probabilities, 0 for the true class (its margin is -inf). One pass over
    blocks of rows.
    """
    N, C = margins.shape
    size = max(1, (CUDA_CHUNK if margins.is_cuda else CHUNK) // C)
    totals = torch.zeros(3, dtype=torch.float64, device=margins.device)
    for i in range(0, N, size):
        m = margins[i : i + size]
        if along is not None:
            m = torch.add(m, along[i : i + size], alpha=rate)
        top = m.amax(1, keepdim=True).clamp_(min=0)  # 0 is the true class's own margin
        e = torch.exp_(m - top)
        others, own = e.sum(1, keepdim=True), torch.exp(-top)
        p = torch.div(e, others + own, out=residual[i : i + size])
        totals[0] += (top + torch.log1p(others + (own - 1))).sum(dtype=torch.float64)
        if along is not None:
            weighted = p * along[i : i + size]
            mean = weighted.sum(1)
            totals[1] += mean.sum(dtype=torch.float64)
            totals[2] += (weighted.mul_(along[i : i + size]).sum(1) - mean.square()).sum(
                dtype=torch.float64
            )
    loss, slope, curvature = totals.tolist()
    return loss, slope, curvature


def _two_loop(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]], scale: Tensor) -> Tensor:
    """The inverse Hessian's estimate times the gradient (Nocedal and Wright, algorithm 7.4), begun
    with a diagonal.
    """
    q, shares = gradient.clone(), []
    for step, change, inverse in reversed(pairs):
        shares.append(inverse * _dot(step, q))
        q.sub_(change, alpha=shares[-1])
    q.mul_(scale)
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        q.add_(step, alpha=share - inverse * _dot(change, q))
    return q


def _dot(a: Tensor, b: Tensor) -> float:
    """Sum of products, summed up in float64 row by row."""
    return (a * b).sum(1).sum(dtype=torch.float64).item()
