"""Sizes, resizing, crops, flips and colors beside SciPy and NumPy, with the random draws fixed."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from harl_bench.segmentation import recipe, transforms
from harl_bench.segmentation.recipe import Input


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    return ndimage.gaussian_filter(image(height, width).astype(float), (2, 2, 0)).astype(np.uint8)


def label(height: int, width: int, classes: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def keys(**values: object) -> Input:
    return Input.model_validate({"ratio": (1, 1), "crop_px": 40, "flip": False} | values)


@pytest.mark.parametrize("size", [(50, 37), (23, 19), (61, 61)])
def test_resizing_beside_scipys_interpolation_at_pixel_centers(size: tuple[int, int]) -> None:
    source = smooth(41, 47)
    width, height = size
    rows = (np.arange(height) + 0.5) * 41 / height - 0.5
    columns = (np.arange(width) + 0.5) * 47 / width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    seen = transforms.resized(source, size).astype(float)
    for channel in range(3):
        expected = ndimage.map_coordinates(
            source[..., channel].astype(float), grid, order=1, mode="nearest"
        )
        assert np.abs(seen[..., channel] - expected).max() <= 1  # OpenCV rounds its weights
    labels = label(41, 47)
    nearest = labels[
        np.floor(np.arange(height) * 41 / height).astype(int)[:, None],
        np.floor(np.arange(width) * 47 / width).astype(int)[None],
    ]
    assert np.array_equal(transforms.resized(labels, size, nearest=True), nearest)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((500, 375), (2048, 512), (683, 512)),
        ((375, 500), (2048, 512), (512, 683)),
        ((2000, 100), (2048, 512), (2048, 102)),
        ((2048, 1024), (2049, 1025), (2049, 1025)),
        ((500, 375), (1024, 256), (341, 256)),
    ],
)
def test_fitted_sizes(
    size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert transforms.fitted(size, limits) == expected


def test_ratios_cover_their_range_and_steps() -> None:
    random = np.random.RandomState(0)
    stepped = keys(ratio=(0.5, 2.0), ratio_step=0.25)
    widths = {transforms.random_size((400, 300), random, stepped) for _ in range(200)}
    assert widths == {(100 * k, 75 * k) for k in range(2, 9)}
    free = keys(ratio=(0.5, 2.0), scale_px=(2048, 512))
    ratios = [transforms.random_size((400, 400), random, free)[0] / 512 for _ in range(300)]
    assert 0.5 <= min(ratios) < 0.55
    assert 1.9 < max(ratios) <= 2.0
    assert len(set(ratios)) > 200


def test_crop_flip_and_padding_move_image_and_label_together() -> None:
    height, width = 30, 90
    labels = (np.arange(height)[:, None] * 3 + np.arange(width)[None] % 3).astype(np.uint8)
    pixels = np.repeat(labels[..., None], 3, axis=2)
    flips = set()
    for seed in range(20):
        a, b = transforms.for_training(pixels, labels, np.random.RandomState(seed), keys(flip=True))
        assert a.shape == (30, 40, 3)
        assert np.array_equal(a[..., 0], b)
        flips.add(bool(b[0, 1] != (b[0, 0] + 1) % 3))
        full, marks = transforms.padded(a, b, 40)
        assert full.shape == (40, 40, 3)
        assert np.array_equal(full[:30], a)
        assert not full[30:].any()
        assert (marks[30:] == 255).all()
        assert np.array_equal(marks[:30], b)
    assert flips == {True, False}


def test_every_crop_is_possible_and_the_same_generator_gives_the_same() -> None:
    labels = label(45, 43)
    windows = {
        (rows.start, columns.start)
        for rows, columns in (
            transforms.random_crop(labels, np.random.RandomState(seed), 40, 1.0)
            for seed in range(300)
        )
    }
    assert windows == {(y, x) for y in range(6) for x in range(4)}
    settings = recipe.load("voc12aug-fcn-d8-20k")[1].input
    pair = [
        transforms.for_training(image(60, 80), label(60, 80), np.random.RandomState(7), settings)
        for _ in range(2)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))


def test_crops_of_one_class_are_drawn_again() -> None:
    labels = np.zeros((40, 400), np.uint8)
    labels[:, 190:210] = 1
    labels[:3] = 255
    shares = []
    for seed in range(60):
        rows, columns = transforms.random_crop(labels, np.random.RandomState(seed), 40, 0.75)
        counts = np.bincount(labels[rows, columns].ravel(), minlength=256)[:255]
        shares.append(counts.max() / counts.sum())
    plain = [
        (labels[transforms.random_crop(labels, np.random.RandomState(seed), 40, 1.0)] == 1).any()
        for seed in range(60)
    ]
    assert np.mean([share < 0.75 for share in shares]) > 2 * np.mean(plain)


class Draws:
    """A generator that hands out a list."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def randint(self, *_: int) -> int:
        return int(self.values.pop(0))

    def uniform(self, *_: float) -> float:
        return self.values.pop(0)


# mode: [brightness?, beta, mode, (contrast? alpha), saturation? alpha, hue? shift, (contrast?)]
def test_brightness_and_contrast_in_either_order() -> None:
    pixels = image(8, 8).astype(np.float32)
    added = np.clip(pixels + 20.5, 0, 255).astype(np.uint8).astype(np.float32)
    expected = np.clip(added * 1.3, 0, 255).astype(np.uint8)
    first = transforms.distorted(image(8, 8), Draws(1, 20.5, 1, 1, 1.3, 0, 0))
    last = transforms.distorted(image(8, 8), Draws(1, 20.5, 0, 0, 0, 1, 1.3))
    assert np.array_equal(first, expected)
    assert np.array_equal(last, expected)
    assert np.array_equal(transforms.distorted(image(8, 8), Draws(0, 1, 0, 0, 0)), image(8, 8))


def test_saturation_and_hue_beside_colorsys() -> None:
    pixels = smooth(8, 8)
    seen = transforms.distorted(pixels, Draws(0, 1, 0, 1, 0.6, 1, 10)).astype(float)
    for y, x in np.ndindex(8, 8):
        h, s, v = colorsys.rgb_to_hsv(*(pixels[y, x] / 255.0))
        expected = np.array(colorsys.hsv_to_rgb((h + 20 / 360) % 1, s * 0.6, v)) * 255
        assert np.abs(seen[y, x] - expected).max() < 6  # 8-bit hue has steps of 2 degrees
