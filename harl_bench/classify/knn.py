"""Protocol `knn`: votes of the nearest images; nothing is trained, nothing selected.

Cosine similarity of L2-normalised features; each of the k nearest of the bank votes for its class
with weight exp(similarity / T). Source: Wu et al. 2018 (1805.01978), as DINO's eval_knn runs it.
Equal votes: the lower label.

Letters: N images, M bank, C classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harl_bench.classify.features import Features
from harl_bench.classify.outcome import Outcome
from harl_bench.core.errors import UsageError
from harl_bench.core.progress import Tracker

QUERIES, BANK = 1024, 65_536  # rows of one block of similarities: 256 MB


def run(
    features: Features,
    classes: int,
    *,
    neighbours: list[int],
    temperature: float,
    headline: int,
    device: torch.device,
) -> Outcome:
    """Answer for test from the bank of all training images (train and val).

    Args:
        neighbours: every k to be scored.
        headline: the k whose answers are stored and shown.

    Raises:
        UsageError: a k is larger than the bank.
    """
    parts = [features.read(split, device) for split in ("train", "val") if split in features.splits]
    bank, labels = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    del parts  # the bank is their copy
    demand_bank(neighbours, len(bank))  # again, without the unreadable images
    test, y_test = features.read("test", device)
    found = votes(test, bank, labels, classes, neighbours=neighbours, temperature=temperature)
    # The softmax of a logarithm of votes is their share; float64, because distinct votes must stay
    # distinct.
    logits = {
        f"k{k}": np.log(v, where=v > 0, out=np.full_like(v, -math.inf)) for k, v in found.items()
    }
    return Outcome(
        features.splits["test"],
        logits[f"k{headline}"],
        y_test.cpu().numpy(),
        {
            "neighbours": neighbours,
            "temperature": temperature,
            "headline": headline,
            "bank": len(bank),
        },
        named=logits,
    )


def demand_bank(neighbours: list[int], size: int) -> None:
    """Refuse more neighbours than the bank has images.

    Raises:
        UsageError: says which would do.
    """
    if max(neighbours) > size:
        fitting = [k for k in neighbours if k <= size] or [size]
        hint = f"add neighbours={fitting} headline={fitting[-1]}".replace(", ", ",")
        raise UsageError(
            "more neighbours than images in the bank", seen=f"{max(neighbours)} > {size}", next=hint
        )


def votes(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    classes: int,
    *,
    neighbours: list[int],
    temperature: float,
) -> dict[int, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Votes [N, C] for each k.

    Args:
        queries: [N, D] float32, of any length.
        bank, labels: [M, D] float32 and [M].
    """
    parts: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    with Tracker("nearest neighbours", len(queries), unit="images") as tracker:
        for i in range(0, len(queries), QUERIES):
            similar, rows = _nearest(
                normalize(queries[i : i + QUERIES], dim=1), bank, max(neighbours)
            )
            # Relative to the nearest: shares stay the same, and no temperature overflows.
            weights = ((similar - similar[:, :1]).double() / temperature).exp()
            for k in neighbours:
                empty = torch.zeros(len(rows), classes, dtype=torch.float64, device=rows.device)
                parts[k].append(empty.scatter_add_(1, labels[rows[:, :k]], weights[:, :k]).cpu())
            tracker.advance(len(rows))
    return {k: torch.cat(part).numpy() for k, part in parts.items()}


def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarity and row of the k nearest, falling; the bank passes in blocks, and the best so far
    are kept.
    """
    similar = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for i in range(0, len(bank), BANK):
        block = (
            queries @ normalize(bank[i : i + BANK], dim=1).T
        )  # again for every block: a bank can fill a GPU
        here, places = block.topk(min(k, block.shape[1]), dim=1)
        similar, rows = torch.cat([similar, here], 1), torch.cat([rows, places + i], 1)
        similar, best = similar.topk(min(k, similar.shape[1]), dim=1)
        rows = rows.gather(1, best)
    return similar, rows
