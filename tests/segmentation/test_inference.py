"""Whole images, sliding windows and central crops of a network that can be computed by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from harl_bench.segmentation import inference
from harl_bench.segmentation.recipe import Test


def pointwise(x: Tensor) -> tuple[Tensor, ...]:
    """Three logits that look at one pixel each, at the input's size."""
    return (torch.cat([x[:, :1], -x[:, :1], x[:, 1:2] - 1], dim=1),)


def local(x: Tensor) -> tuple[Tensor, ...]:
    """Logits that differ with the window that a pixel is seen in."""
    return (torch.cat([x[:, :1] + x.mean(), x[:, 1:2]], dim=1),)


def settings(**values: object) -> Test:
    return Test.model_validate(values)


MODES = [
    settings(mode="whole"),
    settings(mode="slide", crop_px=9, stride_px=6),
    settings(mode="slide", crop_px=9, stride_px=9),
    settings(mode="slide", crop_px=100, stride_px=50),
    settings(mode="center", crop_px=40),
]


@pytest.mark.parametrize("test", MODES, ids=lambda test: f"{test.mode}-{test.crop_px}")
def test_a_network_that_sees_single_pixels_answers_alike_in_every_mode(test: Test) -> None:
    x = torch.randn(1, 3, 23, 31)
    expected = pointwise(x)[0][0].argmax(0).numpy()
    seen = inference.predict(pointwise, x, (23, 31), test, align_corners=True)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, expected)


def test_windows_are_averaged_and_the_last_is_moved_back() -> None:
    x = torch.randn(1, 3, 14, 20)
    total, passes = np.zeros((2, 14, 20)), np.zeros((14, 20))
    for top in (0, 4, 5):  # windows of 9 every 4: 0, 4, then back from 8 to 14 - 9
        for left in (0, 4, 8, 11):
            window = x[:, :, top : top + 9, left : left + 9]
            total[:, top : top + 9, left : left + 9] += local(window)[0][0].numpy()
            passes[top : top + 9, left : left + 9] += 1
    test = settings(mode="slide", crop_px=9, stride_px=4)
    seen = inference.slide(local, x, test, True)[0].numpy()
    np.testing.assert_allclose(seen, total / passes, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 30), (13, 9), (9, 9)])
def test_outside_the_central_crop_there_is_no_answer(size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size)
    seen = inference.predict(
        pointwise, x, size, settings(mode="center", crop_px=9), align_corners=True
    )
    top, left = (size[0] - 9) // 2, (size[1] - 9) // 2
    inside = np.zeros(size, bool)
    inside[max(top, 0) : top + 9, max(left, 0) : left + 9] = True
    assert (seen[~inside] == 255).all()
    assert np.array_equal(seen[inside], pointwise(x)[0][0].argmax(0).numpy()[inside])


def test_a_center_larger_than_the_image_sees_zeros_around_it() -> None:
    shapes = []

    def record(x: Tensor) -> tuple[Tensor, ...]:
        shapes.append((tuple(x.shape), float(x.sum())))
        return pointwise(x)

    x = torch.ones(1, 3, 5, 8)
    inference.predict(record, x, (5, 8), settings(mode="center", crop_px=11), align_corners=True)
    assert shapes == [((1, 3, 11, 11), 120.0)]


def test_logits_are_enlarged_to_the_input_and_then_to_the_original_size() -> None:
    def coarse(x: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.avg_pool2d(pointwise(x)[0], 4),)

    x = torch.randn(1, 3, 16, 24)
    two = torch.nn.functional.interpolate(
        torch.nn.functional.interpolate(coarse(x)[0], (16, 24), mode="bilinear"),
        (25, 37),
        mode="bilinear",
    )
    seen = inference.predict(coarse, x, (25, 37), settings(mode="whole"), align_corners=False)
    assert np.array_equal(seen, two[0].argmax(0).numpy())
