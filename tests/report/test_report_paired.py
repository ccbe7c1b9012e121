"""One seed each, scored by mean per class or mean AP: tests on the stored answers."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harl_bench.core.average_precision import mean_ap
from harl_bench.core.results import Result
from harl_bench.report.collect import Entry, entries_of
from harl_bench.report.grid import Cell
from harl_bench.report.marks import TESTS, _test
from harl_bench.report.paired import PAIRED, RESAMPLES, bootstrap, permutation
from tests.report.report_store import result


def entry(folder: Path, method: str, metric: str, **arrays: Any) -> Entry:
    path = folder / method / "result.json"
    path.parent.mkdir(parents=True)
    N = len(arrays["labels"])
    order = np.random.default_rng(len(method)).permutation(N)  # each stores its own order
    names = np.array([f"{i}.jpg" for i in range(N)])
    stored = {name: np.asarray(values)[order] for name, values in arrays.items()}
    np.savez(path.parent / "predictions.npz", paths=names[order], **stored)
    run: tuple[Path, Result] = path, result("classify", method, dataset="pets", protocol="linear")
    run[1].metrics[metric] = 50.0
    return entries_of([run])[0]


def per_class(right: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def test_permutation_by_all_exchanges(tmp_path: Path) -> None:
    """Every exchange of the two answers of ten images: 1,024 of them, counted one by one."""
    labels = np.array([0] * 8 + [1] * 3 + [3] * 4)
    ours = np.array([1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0], dtype=bool)
    theirs = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1], dtype=bool)
    apart = np.flatnonzero(ours != theirs)
    observed = per_class(ours, labels) - per_class(theirs, labels)
    extreme = 0
    for swapped in product((False, True), repeat=len(apart)):
        a, b = ours.copy(), theirs.copy()
        rows = apart[np.array(swapped)]
        a[rows], b[rows] = theirs[rows], ours[rows]
        extreme += abs(per_class(a, labels) - per_class(b, labels)) >= abs(observed) - 1e-12
    a, b = (
        entry(tmp_path, method, "mean_per_class", labels=labels, place=np.where(right, 0, 2))
        for method, right in (("harl", ours), ("byol", theirs))
    )
    test = permutation(a, b)
    assert test is not None
    assert test.difference == pytest.approx(100 * observed)
    assert test.p == pytest.approx(extreme / 2 ** len(apart), abs=0.006)  # of 100,000 draws
    won = ours.astype(int) - theirs
    variance = sum(won[labels == c].var() / (labels == c).sum() for c in (0, 1, 3)) / 9
    half = 196 * variance**0.5
    assert test.interval == pytest.approx((test.difference - half, test.difference + half))
    back = permutation(b, a)
    assert back is not None
    assert back.difference == pytest.approx(-test.difference)
    assert permutation(a, a) is None


def scored(N: int, quality: float, seed: int) -> np.ndarray:
    """Scores of another scale for each quality, labels of `flags`."""
    rng = np.random.default_rng(seed)
    return 10**quality * (quality * flags(N) + rng.normal(size=(N, 4)))


def flags(N: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    labels = (rng.random((N, 4)) < 0.3).astype(np.int64)
    labels[rng.random((N, 4)) < 0.05] = -1
    return labels


@pytest.mark.parametrize(("better", "low", "high"), [(1.6, 0, 2 / RESAMPLES), (1.0, 0.05, 1.0)])
def test_bootstrap(tmp_path: Path, better: float, low: float, high: float) -> None:
    labels = flags(300)
    ours, theirs = scored(300, better, 1), scored(300, 1.0, 2)
    a = entry(tmp_path, "harl", "mAP11", labels=labels, scores=ours)
    b = entry(tmp_path, "byol", "mAP11", labels=labels, scores=theirs)
    test, back = bootstrap(a, b), bootstrap(b, a)
    assert test is not None
    assert back is not None
    assert test.difference == pytest.approx(mean_ap(ours, labels) - mean_ap(theirs, labels))
    assert low < test.p <= high
    assert (back.difference, back.p) == pytest.approx((-test.difference, test.p))
    assert back.interval == pytest.approx([-bound for bound in reversed(test.interval)])
    assert test.interval[0] < test.difference < test.interval[1]
    assert (test.interval[0] > 0) == (test.p < 0.05)
    assert bootstrap(a, a) is None


@pytest.mark.slow
def test_bootstrap_is_as_often_wrong_as_it_says(tmp_path: Path) -> None:
    """Of 60 pairs of equal quality few have p < 0.05: at most 9, whose chance is 0.2 %."""
    rejected = 0
    for k in range(60):
        pair = [
            entry(tmp_path / str(k), method, "mAP11", labels=flags(150), scores=scored(150, 1.0, s))
            for method, s in (("harl", 2 * k + 1), ("byol", 2 * k + 2))
        ]
        test = bootstrap(*pair)
        assert test is not None
        rejected += test.p < 0.05
    assert rejected <= 9


@pytest.mark.parametrize(("metric", "kind"), [("mean_per_class", "permutation")])
def test_a_cell_is_tested_by_its_metric(tmp_path: Path, metric: str, kind: str) -> None:
    labels = np.arange(40) % 4
    a, b = (
        entry(tmp_path, method, metric, labels=labels, place=np.arange(40) // count)
        for method, count in (("harl", 20), ("byol", 10))
    )
    test = _test(Cell(a.scores[metric], a), Cell(b.scores[metric], b), metric)
    assert test is not None
    assert test.kind == kind
    assert set(TESTS) > {kind}
    assert set(PAIRED) == {"top1", "mean_per_class", "mAP11", "mAP"}


def test_the_area_of_svms_is_tested_as_an_area(tmp_path: Path) -> None:
    labels, ours, theirs = flags(80), scored(80, 1.0, 1), scored(80, 0.5, 2)
    a = entry(tmp_path, "harl", "mAP", labels=labels, scores=ours)
    b = entry(tmp_path, "byol", "mAP", labels=labels, scores=theirs)
    test = PAIRED["mAP"](a, b)
    assert test is not None
    expected = mean_ap(ours, labels, "area") - mean_ap(theirs, labels, "area")
    assert test.difference == pytest.approx(expected)
    assert test.difference != pytest.approx(mean_ap(ours, labels) - mean_ap(theirs, labels))


def test_answers_that_do_not_pair(tmp_path: Path) -> None:
    labels = flags(50)
    a = entry(tmp_path, "harl", "mAP11", labels=labels, scores=scored(50, 1.0, 1))
    b = entry(tmp_path, "byol", "mAP11", labels=labels[:40], scores=scored(50, 1.0, 2)[:40])
    c = entry(tmp_path, "simclr", "mAP11", labels=1 - labels, scores=scored(50, 1.0, 3))
    assert bootstrap(a, b) is None
    assert bootstrap(a, c) is None
    assert permutation(a, c) is None
