"""Scores beside a confusion matrix counted pixel by pixel, and beside sets of pixels."""

import numpy as np
import pytest

from harl_bench.segmentation import confusion


def naive(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), dtype=int)
    for a, b in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if a != 255 and b != 255:
            matrix[a, b] += 1
    return matrix


@pytest.mark.parametrize("classes", [2, 19, 21, 254])
def test_counts(classes: int) -> None:
    random = np.random.default_rng(classes)
    truth = random.integers(0, classes, (23, 31)).astype(np.uint8)
    predicted = random.integers(0, classes, (23, 31)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.2] = 255
    predicted[:2] = 255
    assert np.array_equal(
        confusion.count(truth, predicted, classes), naive(truth, predicted, classes)
    )


def test_scores_by_sets_of_pixels_over_the_whole_set_not_per_image() -> None:
    random = np.random.default_rng(0)
    images = [
        (
            random.integers(0, 4, (n, 9)).astype(np.uint8),
            random.integers(0, 4, (n, 9)).astype(np.uint8),
        )
        for n in (3, 40)
    ]
    matrix = sum(confusion.count(a, b, 4) for a, b in images)
    metrics, per_class = confusion.scores(matrix, ["a", "b", "c", "d"])
    truth, predicted = (np.concatenate([pair[k].ravel() for pair in images]) for k in (0, 1))
    ious = []
    for k, name in enumerate("abcd"):
        both = ((truth == k) & (predicted == k)).sum()
        either = ((truth == k) | (predicted == k)).sum()
        ious.append(100 * both / either)
        assert per_class[name]["IoU"] == pytest.approx(ious[-1])
        assert per_class[name]["Acc"] == pytest.approx(100 * both / (truth == k).sum())
    assert metrics["mIoU"] == pytest.approx(np.mean(ious))
    assert metrics["aAcc"] == pytest.approx(100 * (truth == predicted).mean())
    recalls = [(predicted[truth == k] == k).mean() for k in range(4)]
    assert metrics["mAcc"] == pytest.approx(100 * np.mean(recalls))


def test_absent_classes() -> None:
    truth, predicted = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    predicted[0] = 1  # predicted, and nowhere in the truth: IoU 0; class 2 is nowhere at all
    metrics, per_class = confusion.scores(confusion.count(truth, predicted, 3), "abc")
    assert per_class == {
        "a": {"IoU": 75.0, "Acc": 75.0},
        "b": {"IoU": 0.0, "Acc": None},
        "c": {"IoU": None, "Acc": None},
    }
    assert metrics == {"mIoU": 37.5, "mAcc": 75.0, "aAcc": 75.0}
    nothing, _ = confusion.scores(np.zeros((3, 3), np.int64), "abc")
    assert nothing == {"mIoU": None, "mAcc": None, "aAcc": None}
