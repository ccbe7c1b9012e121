"""Scores of saliency maps: recorded from PySODMetrics 1.6.2 (MIT), short versions, closed forms."""

import numpy as np
import pytest
from numpy.typing import NDArray

from harl_bench.masks import quality

# Recorded with py_sod_metrics.Smeasure, MAE and Fmeasure (beta 0.3) on the three scenes below: of
# the maps, and of the maps above 127 as masks. Percent.
S_OF_MAPS = (59.43102520640785, 61.245398614964216, 58.15992030289936)
MAE_OF_MAPS = (24.652582159624416, 25.53501564945227, 27.5687893081761)
S_OF_MASKS = (72.70077395894738, 63.39585174049126, 54.45839620043345)
MAX_F_OF_MAPS, MAX_F_OF_MASKS = 57.42931032885094, 52.964924227397944

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


def scene(i: int) -> tuple[Map, Mask]:
    """A blurred blob with noise, in steps of 1/255, and a disc beside it as truth."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[:40, :60]
    truth = ((y - 18 - i) ** 2 + (x - 25 + 3 * i) ** 2) < (8 + i) ** 2
    saliency = 0.7 * np.exp(-((y - 20) ** 2 + (x - 28) ** 2) / 200) + 0.15 * rng.random((40, 60))
    return np.round(np.clip(saliency, 0, 1) * 255) / 255, np.asarray(truth)


def test_equal_to_the_fields_toolbox() -> None:
    scenes = [scene(i) for i in range(3)]
    rows = [quality.scores(s > 0.5, truth, s) for s, truth in scenes]
    assert [row["s_measure"] for row in rows] == pytest.approx(S_OF_MAPS)
    assert [row["mae"] for row in rows] == pytest.approx(MAE_OF_MAPS)
    assert quality.mean(rows, [quality.f_curve(*s) for s in scenes])["max_f"] == pytest.approx(
        MAX_F_OF_MAPS
    )
    masks = [(np.where(s > 0.5, 1.0, 0.0), truth) for s, truth in scenes]
    assert [quality.scores(m > 0, t)["s_measure"] for m, t in masks] == pytest.approx(S_OF_MASKS)
    assert quality.mean([{}], [quality.f_curve(*m) for m in masks])["max_f"] == pytest.approx(
        MAX_F_OF_MASKS
    )


def test_the_curve_is_f_at_every_threshold() -> None:
    saliency, truth = scene(1)
    levels = ((saliency - saliency.min()) / (saliency.max() - saliency.min()) * 255).astype(int)
    for place, t in enumerate(range(255, -1, -1)):
        chosen = levels >= t
        both = (chosen & truth).sum()
        precision, recall = 100 * both / max(chosen.sum(), 1), 100 * both / truth.sum()
        f = 1.3 * precision * recall / (0.3 * precision + recall) if both else 0.0
        assert quality.f_curve(saliency, truth)[place] == pytest.approx(f)


def test_s_measure_of_four_parts_by_hand() -> None:
    """The truth's centre is (1, 1): parts of 4, 4, 4 and 4 pixels in a 4x4 image."""
    truth = np.zeros((4, 4), bool)
    truth[:3, :3] = True
    saliency = np.linspace(0, 1, 16).reshape(4, 4)

    def ssim(a: Map, b: Map) -> float:
        a, b = a.ravel(), b.ravel()
        together, va, vb = np.cov(a, b)[0, 1], a.var(ddof=1), b.var(ddof=1)
        above, below = (
            4 * a.mean() * b.mean() * together,
            (a.mean() ** 2 + b.mean() ** 2) * (va + vb),
        )
        return above / below if above else float(below == 0)

    def inside(v: Map) -> float:
        return 2 * v.mean() / (v.mean() ** 2 + 1 + v.std(ddof=1))

    parts = [(a, b) for a in (slice(0, 2), slice(2, 4)) for b in (slice(0, 2), slice(2, 4))]
    regions = sum(ssim(saliency[p], truth[p] * 1.0) / 4 for p in parts)
    objects = 9 / 16 * inside(saliency[truth]) + 7 / 16 * inside(1 - saliency[~truth])
    assert quality.s_measure(saliency, truth) == pytest.approx(50 * (regions + objects))


@pytest.mark.parametrize(
    ("value", "truth", "expected"), [(0, 0, 100), (1, 1, 100), (0, 1, 0), (1, 0, 0)]
)
def test_s_measure_of_plain_images(value: int, truth: int, expected: float) -> None:
    assert (
        quality.s_measure(np.full((3, 5), float(value)), np.full((3, 5), truth, bool)) == expected
    )


def test_a_perfect_map_scores_fully() -> None:
    _, truth = scene(2)
    row = quality.scores(truth, truth)
    assert {name: round(value, 9) for name, value in row.items() if name != "mae"} == dict.fromkeys(
        ("foreground_iou", "mean_iou", "precision", "recall", "f_beta", "s_measure"), 100
    )
    assert row["mae"] == 0
    assert quality.f_curve(truth * 1.0, truth).max() == pytest.approx(100)


def test_a_graded_map_has_a_better_threshold_than_its_mask() -> None:
    """A dim but well-ordered map is perfect under max-F and empty at 0.5."""
    truth = np.zeros((10, 10), bool)
    truth[2:5, 3:9] = True
    dim = np.where(truth, 0.3, 0.1)
    assert quality.mean([{}], [quality.f_curve(dim, truth)])["max_f"] == pytest.approx(100)
    assert quality.scores(dim > 0.5, truth, dim)["f_beta"] == 0


def test_an_empty_truth_is_met_by_finding_nothing() -> None:
    nothing = np.zeros((4, 4), bool)
    ramp = np.linspace(0, 1, 16).reshape(4, 4)
    assert quality.f_curve(ramp, nothing).max() == 0
