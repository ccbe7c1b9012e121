"""Which images are held out: the sizes of Table A2, and always the same ones."""

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harl_bench.classify import splits
from harl_bench.classify.datasets import DATASETS, PUBLISHED
from tests.classify.layouts import WRITERS

# class sizes of the published training splits; those of Cars lie between 24 and 68 and sum up to
# 8,144, those of Birdsnap and Pets are made up with the true sum
SIZES = {
    "food101": [750] * 101,
    "cifar10": [5000] * 10,
    "cifar100": [500] * 100,
    "sun397": [50] * 397,
    "cars": [41, 42] * 97 + [43, 50],
    "birdsnap": [94] * 264 + [95] * 186 + [98] * 50,
    "pets": [100] * 20 + [99] * 16 + [96],
    "caltech101": [30] * 102,  # with the background, as published
}


@pytest.mark.parametrize("name", SIZES)
def test_validation_sizes_are_table_a2(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    published, sizes = PUBLISHED[name], SIZES[name]
    assert sum(sizes) == published.train
    labels = np.repeat(np.arange(len(sizes)), sizes)
    hold_out = DATASETS[name](tmp_path).hold_out
    rows = np.arange(len(labels))
    train, val = hold_out(labels, rows, np.random.default_rng(0))
    assert (len(train), len(val)) == (published.train - published.val, published.val)
    assert not set(train) & set(val)
    counts = Counter(np.bincount(labels[val]).tolist())
    expected = {
        "food101": {75: 101},
        "cifar10": {500: 10},
        "cifar100": {51: 67, 50: 33},
        "sun397": {10: 397},
        "pets": {20: 37},
        "caltech101": {5: 102},
    }
    if name in expected:
        assert counts == expected[name]
    else:
        exact = np.array(sizes) * published.val / published.train
        assert (np.abs(np.bincount(labels[val]) - exact) < 1).all()
    _, again = hold_out(labels, rows, np.random.default_rng(0))
    _, other = hold_out(labels, rows, np.random.default_rng(1))
    assert again.tolist() == val.tolist()
    assert other.tolist() != val.tolist()


def test_imagenet_holds_out_ten_a_class() -> None:
    labels = np.repeat(np.arange(3), [732, 1300, 8])
    hold_out = partial(splits.per_class, count=10)
    train, val = hold_out(labels, np.arange(len(labels)), np.random.default_rng(0))
    assert np.bincount(labels[val]).tolist() == [10, 10, 7]
    assert len(train) + len(val) == len(labels)


def test_the_draw_stays_what_it_was() -> None:
    """Golden: seed 0's list on CIFAR-100's shape; a change of numpy's generator would silently
    change every split.
    """
    labels = np.arange(50_000) % 100
    _, val = splits.proportional(
        labels, np.arange(50_000), np.random.default_rng(0), held=5067, of=50_000
    )
    assert hashlib.sha256(val.astype("<i8").tobytes()).hexdigest()[:16] == "9b3275f4ffa594ec"
