"""Protocol `knn`: votes of the nearest images, with nothing trained and nothing selected.

Each of the k nearest images of the bank, by cosine similarity of features, votes for its class with
weight exp(similarity / T). Of equal votes the lower label wins.
Source: Wu et al. 2018 (1805.01978), as DINO's eval_knn runs it.

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
from harl_bench.classify.stored import FeatureRows, joined
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
    bank, labels = joined([x for x, _ in parts]), torch.cat([y for _, y in parts])
    del parts  # the bank is their copy, unless it stays in its file
    require_bank(neighbours, len(bank))  # again, without the unreadable images
    test, y_test = features.read("test", device)
    by_k = votes(test[:], bank, labels, classes, neighbours=neighbours, temperature=temperature)
    # The softmax of log votes is their fraction; float64, because distinct votes must stay so.
    logits = {
        f"k{k}": np.log(v, where=v > 0, out=np.full_like(v, -math.inf)) for k, v in by_k.items()
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


def require_bank(neighbours: list[int], size: int) -> None:
    """Raise a UsageError for more neighbours than the bank has images."""
    if max(neighbours) > size:
        fitting = [k for k in neighbours if k <= size] or [size]
        hint = f"add neighbours={fitting} headline={fitting[-1]}".replace(", ", ",")
        raise UsageError(
            "more neighbours than images in the bank", seen=f"{max(neighbours)} > {size}", next=hint
        )


def votes(
    queries: Tensor,
    bank: FeatureRows,
    labels: Tensor,
    classes: int,
    *,
    neighbours: list[int],
    temperature: float,
) -> dict[int, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return the votes [N, C] for each k.

    Args:
        queries: [N, D] float32, of any length.
        bank, labels: [M, D] float32 and [M].
    """
    parts: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for similar, rows in _nearest(queries, bank, max(neighbours)):
        # Relative to the nearest: fractions stay the same, and no temperature overflows.
        weights = ((similar - similar[:, :1]).double() / temperature).exp()
        for k in neighbours:
            empty = torch.zeros(len(rows), classes, dtype=torch.float64, device=rows.device)
            parts[k].append(empty.scatter_add_(1, labels[rows[:, :k]], weights[:, :k]).cpu())
    return {k: torch.cat(part).numpy() for k, part in parts.items()}


def _nearest(queries: Tensor, bank: FeatureRows, k: int) -> list[tuple[Tensor, Tensor]]:
    """Return similarity and row of the k nearest, nearest first, of each block of queries.

    The bank passes once, in blocks: it may be a file.
    """
    blocks = [normalize(block, dim=1) for block in torch.split(queries, QUERIES)]
    nearest = [
        (x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64, device=x.device))
        for x in blocks
    ]
    passed = 0
    with Tracker("nearest neighbours", len(bank), unit="images of the bank") as tracker:
        for part in bank.split(BANK):
            units = normalize(part, dim=1)
            for i, (block, (similar, rows)) in enumerate(zip(blocks, nearest, strict=True)):
                values, indices = (block @ units.T).topk(min(k, len(units)), dim=1)
                similar = torch.cat([similar, values], 1)
                rows = torch.cat([rows, indices + passed], 1)
                similar, best = similar.topk(min(k, similar.shape[1]), dim=1)
                nearest[i] = similar, rows.gather(1, best)
            passed += len(units)
            tracker.advance(len(units))
    return nearest
