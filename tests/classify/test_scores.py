"""Scores against a plain loop, ties, absent classes, intervals, and held-out splits."""

import numpy as np
import pytest

from harl_bench.classify import scores
from harl_bench.classify.splits import stratified


def loop(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Percent of rows whose label is among the k highest; of equal logits the lower label comes
    first.
    """
    hits = 0
    for row, label in zip(logits, labels, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        hits += label in order[:k]
    return 100 * hits / len(labels)


def test_against_a_loop_with_ties() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 8)).astype(np.float32)  # many equal logits
    labels = rng.integers(0, 7, 200)  # class 7 does not occur
    places = scores.ranks(logits, labels)
    metrics = scores.score(places, labels, 8)
    assert metrics["top1"] == pytest.approx(loop(logits, labels, 1))
    assert metrics["top5"] == pytest.approx(loop(logits, labels, 5))
    per_class = [loop(logits[labels == c], labels[labels == c], 1) for c in range(7)]
    assert metrics["mean_per_class"] == pytest.approx(np.mean(per_class))
    named = scores.per_class(places, labels, [f"c{i}" for i in range(8)])
    assert named["c3"]["top1"] == pytest.approx(per_class[3])
    assert named["c7"]["top1"] is None


def test_a_class_without_a_vote_is_no_hit() -> None:
    """Of ten classes one got every vote: the others are not among the top five by their number."""
    logits = np.full((10, 10), -np.inf, np.float32)
    logits[:, 7] = 0
    assert scores.score(scores.ranks(logits, np.arange(10)), np.arange(10), 10)["top5"] == 10


def test_top5_is_left_out_where_it_means_nothing() -> None:
    places = np.zeros(4, np.int64)
    assert "top5" not in scores.score(places, np.arange(4), 5)
    assert scores.score(places, np.arange(4), 6)["top5"] == 100


def test_interval_is_about_the_binomial_one() -> None:
    """Half-width 1.96 sqrt(p (1 - p) / n) for 400 images at 75 %."""
    places = np.array([0] * 300 + [3] * 100)
    low, high = scores.intervals(places, np.zeros(400, np.int64), 8, np.random.default_rng(0))[
        "top1"
    ]
    expected = 196 * np.sqrt(0.75 * 0.25 / 400)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert low < 75 < high


def test_confusions_are_counted_most_frequent_first() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, 1, 0])
    assert scores.confusions(predicted, labels) == [(0, 1, 2), (1, 0, 1), (2, 0, 1)]


def test_stratified_split_keeps_every_class_on_both_sides_and_varies_with_the_seed() -> None:
    labels = np.repeat(np.arange(5), [2, 3, 10, 40, 5])
    rows = np.arange(60)
    splits = [
        stratified(labels, rows, np.random.default_rng(seed), share=0.2) for seed in (0, 0, 1)
    ]
    for train, val in splits:
        assert sorted([*train, *val]) == rows.tolist()
        assert set(labels[train]) == set(labels[val]) == set(range(5))
        assert [int((labels[val] == c).sum()) for c in range(5)] == [1, 1, 2, 8, 1]
    assert np.array_equal(splits[0][1], splits[1][1])
    assert not np.array_equal(splits[0][1], splits[2][1])
