"""The cross-entropy of the solver, its gradient and its slope along a step, in margins.

Letters as in solver.py: N rows, K basis columns, C classes. Margins are logits minus the true
class's (solver.py, 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from harl_bench.classify.eigenbasis import Basis

CHUNK = 1 << 17  # elements that pass through the softmax at once: they stay in a processor's cache
CUDA_CHUNK = 1 << 27  # ... on a GPU: half a gigabyte each


def truth(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the true classes [N, 1] int64, or of binary problems the signs [N, C], 1, -1 or 0."""
    if labels.ndim == 1:
        return labels[:, None]
    present, absent = labels == 1, labels == 0
    solved = present.any(0) & absent.any(0)
    return (present.to(dtype) - absent.to(dtype)) * solved


def margins(basis: Basis, w: Tensor, true: Tensor) -> Tensor:
    """Return logits [N, C] minus the true class's, of binary problems the wrong side's logits."""
    logits = basis.logits(w)
    if true.is_floating_point():
        return logits.mul_(-true)
    return logits.sub_(logits.gather(1, true))


def gradient(basis: Basis, residual: Tensor, true: Tensor) -> Tensor:
    """Return the gradient [K, C] of the cross-entropy.

    `residual` [N, C] of the wrong classes is completed in place: its rows then sum to 0. Of binary
    problems it gets its sign.
    """
    if true.is_floating_point():
        return basis.back(residual.mul_(-true))
    return basis.back(residual.scatter_(1, true, -residual.sum(1, keepdim=True)))


def softmax(
    margins: Tensor, along: Tensor | None, rate: float, residual: Tensor, binary: bool
) -> tuple[float, float, float]:
    """Return cross-entropy, slope and curvature at margins + rate * along, all [N, C].

    `residual` receives the probabilities, 0 for the true class (its margin is -inf). One pass over
    blocks of rows. Of binary problems each column is a softmax of its own over two classes, and
    `residual` the wrong side's probability, 0 for a row that is left out.
    """
    N, C = margins.shape
    size = max(1, (CUDA_CHUNK if margins.is_cuda else CHUNK) // C)
    totals = torch.zeros(3, dtype=torch.float64, device=margins.device)
    for i in range(0, N, size):
        m = margins[i : i + size]
        if along is not None:
            m = torch.add(m, along[i : i + size], alpha=rate)
        # 0 is the true class's own margin.
        top = m.clamp(min=0) if binary else m.amax(1, keepdim=True).clamp_(min=0)
        e = torch.exp_(m - top)
        others, own = e if binary else e.sum(1, keepdim=True), torch.exp(-top)
        p = torch.div(e, others + own, out=residual[i : i + size])
        totals[0] += (top + torch.log1p(others + (own - 1))).sum(dtype=torch.float64)
        if along is not None:
            weighted = p * along[i : i + size]
            mean = weighted.sum(1)
            totals[1] += mean.sum(dtype=torch.float64)
            squares = weighted.square().sum(1) if binary else mean.square()
            totals[2] += (weighted.mul_(along[i : i + size]).sum(1) - squares).sum(
                dtype=torch.float64
            )
    loss, slope, curvature = totals.tolist()
    return loss, slope, curvature
