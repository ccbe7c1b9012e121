"""From a saliency map to a mask: thresholds and clean-up."""

import numpy as np
import pytest

from harl_bench.masks import finish


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", [0, 0, 1, 1]),
        ("0.8", [0, 0, 0, 1]),
        ("otsu", [0, 0, 1, 1]),
        ("2xmean", [0, 0, 0, 1]),
    ],
)
def test_thresholds(text: str, expected: list[int]) -> None:
    saliency = np.array([[0.0, 0.1, 0.6, 1.0]], np.float32)
    np.testing.assert_array_equal(
        finish.binarise(saliency, finish.parse_threshold(text))[0], expected
    )


def test_clean_drops_specks_and_fills_holes() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:70, 20:70] = True
    expected = mask.copy()
    mask[40:44, 40:44] = False  # 16 px of 10,000
    mask[90:95, 90:95] = True
    np.testing.assert_array_equal(finish.clean(mask), expected)
