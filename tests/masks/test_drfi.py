"""DRFI's features against a pixel-by-pixel oracle, and the fit."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from harl_bench.core.errors import BenchError, DataError, UsageError
from harl_bench.masks import drfi, forest, makers, quality
from harl_bench.masks import region_features as f
from tests.masks import mask_scenes as scenes


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (24, 32, 3)).astype(np.float32), (5, 5), 1.5)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def labels() -> NDArray[np.int32]:
    """Four regions: a block inside, a line one pixel wide, left and right ground."""
    labels = np.zeros((24, 32), np.int32)
    labels[:, 17:] = 1
    labels[6:15, 8:21] = 2
    labels[20, 3:9] = 3
    return labels


def test_names_count_as_in_the_paper() -> None:
    assert len(f.DISTANCES) == 29
    assert len(f.PROPERTIES) == 35
    assert len(f.NAMES) == len(set(f.NAMES)) == 93


def test_filters_answer_to_their_own_direction() -> None:
    bank = f.filter_bank()
    assert [v.shape for v in bank] == [(19, 19)] * 15
    for v in bank:
        assert abs(v.sum()) < 1e-5
        assert np.abs(v).sum() == pytest.approx(1, abs=1e-5)
    y, x = np.mgrid[:64, :64] - 32.0
    for i in range(6):
        angle = np.pi * i / 6
        across = np.sin(angle) * x - np.cos(angle) * y  # image rows run downwards
        for kind, shape in ((0, (across > 0) * 255), (1, (np.abs(across) < 2) * 255)):
            found = [
                np.abs(cv2.filter2D(shape.astype(np.float32), -1, v))[32, 32]
                for v in bank[6 * kind :][:6]
            ]
            assert int(np.argmax(found)) == i or np.ptp(np.sort(found)[-2:]) < 1e-3 * max(found), (
                kind,
                i,
            )


def chi(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return sum((a - b) ** 2 / (a + b) for a, b in zip(p, q, strict=True) if a + b > 0) / 2


def oracle(labels: NDArray[np.int32], pixels: f.Channels) -> NDArray[np.float64]:
    """The features one region at a time, by boolean masks and loops."""
    h, w = labels.shape
    n = labels.max() + 1
    yy, xx = np.mgrid[:h, :w]
    inside = [labels == i for i in range(n)]
    width = max(1, round(0.0375 * max(h, w)))
    border = (yy < width) | (yy >= h - width) | (xx < width) | (xx >= w - width)

    def distances(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> list[float]:
        means = [
            abs(float(c[one].mean(dtype=float) - c[other].mean(dtype=float)))
            for c in pixels.values[:24]
        ]
        histograms = []
        for bins, size in zip(pixels.bins, f.HISTOGRAMS.values(), strict=True):
            p, q = (np.bincount(bins[area], minlength=size) / area.sum() for area in (one, other))
            histograms.append(chi(p, q))
        return means + histograms

    rows = []
    for i in range(n):
        centre = [np.array([xx[m].mean() + 0.5, yy[m].mean() + 0.5]) / max(h, w) for m in inside]
        weight = np.exp([-np.hypot(*(centre[i] - c)) / 0.4 for c in centre])
        contrast = np.array([distances(inside[i], m) for m in inside]).T @ weight / weight.sum()
        ys, xs = np.sort(yy[inside[i]]), np.sort(xx[inside[i]])
        area = len(ys)
        low, high = int(np.ceil(area * 0.1)) - 1, int(np.ceil(area * 0.9)) - 1
        left, right, top, bottom = xs[low] + 0.5, xs[high] + 0.5, ys[low] + 0.5, ys[high] + 0.5
        rim, neighbours = 0, set()
        for y, x in zip(yy[inside[i]], xx[inside[i]], strict=True):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            others = {labels[a, b] for a, b in around if 0 <= a < h and 0 <= b < w} - {i}
            rim += bool(others) or y in (0, h - 1) or x in (0, w - 1)
            neighbours |= others
        variance = [c[inside[i]].var(ddof=1, dtype=float) for c in pixels.values]
        variance[-1] *= 1e-4
        rows.append(
            [
                *contrast,
                *distances(inside[i], border),
                (xs.mean() + 0.5) / w,
                (ys.mean() + 0.5) / h,
                left / w,
                top / h,
                right / w,
                bottom / h,
                rim / (h + w),
                ((right - left + 1) / w) / ((bottom - top + 1) / h),
                *variance,
                area / (h * w),
                sum(inside[j].sum() for j in neighbours) / (h * w),
            ]
        )
    return np.array(rows)


def test_features_equal_the_oracle(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
    pixels = f.channels(image)
    found, expected = f.features(labels, pixels), oracle(labels, pixels)
    assert found.shape == (4, 93)
    assert np.ptp(expected, axis=0).min() > 0, "every feature tells regions apart in this image"
    for i, name in enumerate(f.NAMES):
        np.testing.assert_allclose(found[:, i], expected[:, i], rtol=2e-4, atol=2e-6, err_msg=name)


def test_channels_of_known_pixels() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (255, 0, 0)
    values = f.channels(image).values[:, 4, 4]
    np.testing.assert_allclose(values[:3], (1, 0, 0), atol=1e-6)
    red = (0.5324, 80.09 / 220 + 0.5, 67.2 / 220 + 0.5)  # sRGB's by the CIE
    np.testing.assert_allclose(values[3:6], red, atol=1e-3)
    np.testing.assert_allclose(values[6:9], (0, 1, 1), atol=1e-6)
    assert values[9:].max() < 1e-6, "a constant image has no texture"


def test_local_binary_pattern_counts_brighter_neighbours() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (6, 7)).astype(np.uint8)
    code = f.local_binary_pattern(grey)
    for y in range(6):
        for x in range(7):
            around = grey[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            assert int(code[y, x]).bit_count() == (around > grey[y, x]).sum()


def test_mirrored_images_have_mirrored_features(
    image: NDArray[np.uint8], labels: NDArray[np.int32]
) -> None:
    plain = f.features(labels, f.channels(image))
    mirrored = f.features(labels[:, ::-1].copy(), f.channels(image[:, ::-1].copy()))
    column = {name: i for i, name in enumerate(f.NAMES)}
    same = [
        i
        for n, i in column.items()
        if not any(w in n for w in ("edge", "bar", "texture", "lbp", "left", "right"))
    ]
    same.remove(column["x"])
    np.testing.assert_allclose(mirrored[:, same], plain[:, same], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mirrored[:, column["x"]], 1 - plain[:, column["x"]], atol=1e-6)


def test_fusion_of_two_segmentations() -> None:
    one, two = np.array([[0, 0, 1, 1]], np.int32), np.array([[0, 1, 2, 2]], np.int32)
    found = drfi.fuse([(one, np.array([0.2, 0.6])), (two, np.array([0.0, 0.5, 1.0]))])
    middle = (np.exp(0.625) - 1) / (np.exp(1.25) - 1)
    np.testing.assert_allclose(found, [[0, middle / 2, 1, 1]], atol=1e-6)


def test_only_sure_regions_are_examples() -> None:
    image, truth = scenes.disc(0)
    how = drfi.Segmentation(levels="single")
    rows, targets = drfi.examples(image, truth, how)
    assert set(targets) == {0, 1}
    assert len(rows) == len(targets)
    noise = np.random.default_rng(0).random(truth.shape) < 0.5  # every region is half foreground
    assert len(drfi.examples(image, noise, how)[0]) == 0


def test_examples_are_balanced() -> None:
    targets = np.repeat([1.0, 0.0], [10, 100])
    kept = drfi._balanced(targets, np.random.default_rng(0))
    assert [int((targets[kept] == c).sum()) for c in (1, 0)] == [10, 12]
    assert len(set(kept)) == 22
    with pytest.raises(DataError, match="10 foreground and 0 background"):
        drfi._balanced(np.ones(10), np.random.default_rng(0))


def test_single_level_scales_with_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, float]] = []

    def spy(rgb: NDArray[np.uint8], **values: float) -> NDArray[np.int32]:
        seen.append(values)
        return np.zeros(rgb.shape[:2], np.int32)

    monkeypatch.setattr(drfi.r, "segment", spy)
    drfi.Segmentation(levels="single").cut(np.zeros((375, 500, 3), np.uint8))
    drfi.Segmentation(levels="single", sigma=0.4, min_size=1500).cut(
        np.zeros((75, 100, 3), np.uint8)
    )
    drfi.Segmentation(levels="fifteen").cut(np.zeros((300, 400, 3), np.uint8))
    assert seen[0] == {"sigma": 0.8, "k": 875 / 8, "min_size": 1000, "engine": "opencv"}
    assert seen[1] == {"sigma": 0.4, "k": 175 / 8, "min_size": 60, "engine": "opencv"}
    rows = [(v["sigma"], v["k"], v["min_size"]) for v in seen[2:]]
    assert len(set(rows)) == 15
    assert {(0.8, 100, 150), (0.8, 400, 300), (0.9, 200, 200)} <= set(rows)


def test_a_fit_finds_discs_it_has_not_seen(tmp_path: Path) -> None:
    images, masks = scenes.write(tmp_path, 8)
    pairs = [
        (p, masks / p.relative_to(images).with_suffix(".png"))
        for p in sorted(images.rglob("*.jpg"))
    ]
    how = drfi.Fit(trees=20, levels="single")
    first, counts = drfi.fit(pairs, how, seed=0, workers=0)
    again, _ = drfi.fit(pairs, how, seed=0, workers=0)
    other, _ = drfi.fit(pairs, how, seed=1, workers=0)
    assert counts["foreground_regions"] >= 8
    np.testing.assert_array_equal(first.threshold, again.threshold)
    assert (
        len(first.threshold) != len(other.threshold) or (first.threshold != other.threshold).any()
    )
    forest.save(
        tmp_path / "f.npz", first, {"segmentation": {"levels": "single", "min_size": 1200.0}}
    )
    method = makers.method_of("drfi", model=tmp_path / "f.npz")
    assert method.min_size == 1200, "cut as fitted"  # type: ignore[attr-defined]
    assert makers.method_of("drfi", ["min_size=900"], model=tmp_path / "f.npz").min_size == 900  # type: ignore[attr-defined]
    maker = method.maker()
    for seed in (20, 21, 22):
        image, truth = scenes.disc(seed)
        assert quality.scores(maker(image, Path("x")) > 0.5, truth)["foreground_iou"] > 75


@pytest.mark.parametrize("size", [(1, 1), (7, 50), (8, 8), (9, 300)])
def test_tiny_images_do_not_break(size: tuple[int, int]) -> None:
    stump = forest.Forest(
        *(np.zeros(1, t) for t in (np.int16, float, np.int32, np.int32, float, np.int32))
    )
    saliency = drfi.DrfiMaker(drfi.Segmentation(), stump)(
        np.full((*size, 3), 128, np.uint8), Path("x")
    )
    assert np.isfinite(saliency).all()
    assert (
        drfi.examples(np.full((*size, 3), 128, np.uint8), np.ones(size, bool), drfi.Segmentation())[
            0
        ].shape[1]
        == 93
    )


def test_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(UsageError, match="levels=single"):
        drfi.Segmentation(sigma=0.4)
    assert drfi.Segmentation(levels="single", sigma=0.4).sigma == 0.4


def test_refinement_follows_the_outline() -> None:
    image, truth = scenes.disc(5)
    blurred = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 6)
    before, after = (
        quality.scores(m > 0.5, truth)["foreground_iou"]
        for m in (blurred * 0.9, drfi.refine(image, blurred, 2))
    )
    assert after > 95 > before


def test_needs_a_model() -> None:
    with pytest.raises(UsageError, match="masks fit"):
        makers.method_of("drfi")
    with pytest.raises(BenchError, match="not found"):
        makers.method_of("drfi", model=Path("no.npz"))
