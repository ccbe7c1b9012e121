"""Features turned into the eigenbasis of their covariance, where the solver works (solver.py, 1).

Letters: N rows, d features, K basis columns, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from harl_bench.classify.stored import FeatureRows

ROWS = 8192  # rows of one block: 64 MB of 2,048 float32 features
RANK = 1e-13  # directions below this fraction of the largest variance are rounding noise of float64


@dataclass(frozen=True)
class Basis:
    """Rows in the eigenbasis of their covariance."""

    features: FeatureRows  # [N, d], as they came
    rows: Tensor  # [N, K] float32: K - 1 directions, then a column of ones (the bias)
    lengths: Tensor  # [K] float64, squared lengths of the columns of `rows`
    mean: Tensor  # [d] float64
    axes: Tensor  # [d, K - 1] float64, orthonormal columns

    def turned(self, features: FeatureRows) -> Tensor:
        """Return other features [M, d] in this basis, [M, K] float32.

        Times coefficients [K, C] they give logits.
        """
        mean, axes = self.mean.float(), self.axes.float()
        turned = torch.ones(len(features), axes.shape[1] + 1, device=axes.device)
        for part, rows in zip(features.split(ROWS), torch.split(turned, ROWS), strict=True):
            rows[:, :-1] = (part.float() - mean) @ axes
        return turned

    def logits(self, w: Tensor) -> Tensor:
        """Return logits [N, C] of coefficients w [K, C], in the precision of w."""
        if w.dtype == torch.float32:
            return self.rows @ w
        plain, logits = self.axes @ w[:-1], w.new_empty(len(self.features), w.shape[1])
        for part, rows in zip(self.features.split(ROWS), torch.split(logits, ROWS), strict=True):
            rows[:] = (part - self.mean) @ plain + w[-1]
        return logits

    def back(self, residual: Tensor) -> Tensor:
        """Return the rows transposed times a residual [N, C]: [K, C], in its precision."""
        if residual.dtype == torch.float32:
            return self.rows.T @ residual
        plain = residual.new_zeros(self.features.shape[1], residual.shape[1])
        for part, rows in zip(self.features.split(ROWS), torch.split(residual, ROWS), strict=True):
            plain += (part - self.mean).T @ rows
        return torch.cat([self.axes.T @ plain, residual.sum(0, keepdim=True)])

    def into(self, weights: Tensor, bias: Tensor) -> Tensor:
        """Return coefficients [K, C] float32 with the logits of weights [d, C] and bias [C]."""
        weights = weights.to(self.axes)
        return torch.cat(
            [self.axes.T @ weights, (bias.to(self.mean) + self.mean @ weights)[None]]
        ).float()

    def out(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [d, C] and bias [C], both float32, of coefficients [K, C]."""
        weights = self.axes @ coefficients[:-1].to(self.axes)
        return weights.float(), (coefficients[-1].to(self.mean) - self.mean @ weights).float()


def prepare(features: FeatureRows) -> Basis:
    """Centre features [N, d] and turn them into the eigenbasis of their covariance."""
    N, d = features.shape
    mean = (
        reduce(torch.add, (part.sum(0, dtype=torch.float64) for part in features.split(ROWS))) / N
    )
    if d >= N:
        centred = features[:].double() - mean
        eigenvalues, vectors = torch.linalg.eigh(centred @ centred.T)
        large = eigenvalues > RANK * eigenvalues[-1]
        axes = (centred.T @ vectors[:, large]) / eigenvalues[large].sqrt()
    else:
        gram = torch.zeros(d, d, dtype=torch.float64, device=features.device)
        for part in features.split(ROWS):
            single = part.float() - mean.float()
            gram += single.T @ single  # float32 products: any orthonormal basis is exact
        _, axes = torch.linalg.eigh(gram)
    basis = Basis(features, mean.new_empty(0), mean.new_empty(0), mean, axes)
    rows = basis.turned(features)
    lengths = reduce(
        torch.add, (part.square().sum(0, dtype=torch.float64) for part in torch.split(rows, ROWS))
    )
    return replace(basis, rows=rows, lengths=lengths)
