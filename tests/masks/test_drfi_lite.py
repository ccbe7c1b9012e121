"""The label-free scorer: its cues against loops over regions, its symmetries, odd images."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harl_bench.masks import drfi_lite, quality
from harl_bench.masks import regions as r
from harl_bench.masks.drfi_lite import DrfiLite
from tests.masks import mask_scenes as scenes


@pytest.fixture(scope="module")
def cut() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """An image and five regions, one of them inside."""
    rng = np.random.default_rng(0)
    labels = np.zeros((30, 40), np.int32)
    labels[:, 22:] = 1
    labels[18:, :12] = 2
    labels[8:20, 15:28] = 3
    labels[:4, 30:] = 4
    colors = rng.integers(30, 220, (5, 3))
    return (colors[labels] + rng.integers(-15, 15, (30, 40, 3))).clip(0, 255).astype(
        np.uint8
    ), labels


def test_layout_by_loops(cut: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> None:
    labels = cut[1]
    place = r.layout(labels)
    h, w = labels.shape
    touching = np.zeros((5, 5))
    for y in range(h):
        for x in range(w):
            for a, b in ((y + 1, x), (y, x + 1)):
                if a < h and b < w and labels[y, x] != labels[a, b]:
                    touching[labels[y, x], labels[a, b]] += 1
                    touching[labels[a, b], labels[y, x]] += 1
    np.testing.assert_array_equal(place.touching, touching)
    for i in range(5):
        y, x = np.nonzero(labels == i)
        assert place.area[i] == len(y)
        np.testing.assert_allclose(place.centre[i], [(x.mean() + 0.5) / w, (y.mean() + 0.5) / h])
        corners = np.zeros((h, w), int)
        corners[0] += 1
        corners[-1] += 1
        corners[:, 0] += 1
        corners[:, -1] += 1
        assert place.edge[i] == corners[labels == i].sum()


def test_contrast_and_backgroundness_by_loops(
    cut: tuple[NDArray[np.uint8], NDArray[np.int32]],
) -> None:
    image, labels = cut
    lab, place = drfi_lite.to_lab(image), r.layout(labels)
    h, w = labels.shape
    colors = np.array([lab[labels == i].mean(axis=0, dtype=float) for i in range(5)])
    apart = np.linalg.norm(colors[:, None] - colors, axis=2)
    centre = place.centre * (w, h) / max(h, w)
    away = np.linalg.norm(centre[:, None] - centre, axis=2)
    low, span = np.array([0, -64, -64]), np.array([100, 128, 128])
    cells = np.clip((lab - low) / span * 8, 0, 7).astype(int) @ [64, 8, 1]
    share = np.array(
        [np.bincount(cells[labels == i], minlength=512) / (labels == i).sum() for i in range(5)]
    )

    def chi(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
        return sum((a - b) ** 2 / (a + b) for a, b in zip(p, q, strict=True) if a + b) / 2

    def unit(values: list[float]) -> NDArray[np.float64]:
        return (np.array(values) - min(values)) / (max(values) - min(values))

    unlike, distance = [], []
    for i in range(5):
        weight = [
            0 if i == j else np.exp(-away[i, j] / 0.4) * (labels == j).sum() for j in range(5)
        ]
        unlike.append(sum(weight[j] * chi(share[i], share[j]) for j in range(5)) / sum(weight))
        distance.append(sum(weight[j] * apart[i, j] for j in range(5)) / sum(weight))
    np.testing.assert_allclose(
        drfi_lite.contrast(share, place, apart, away), unit(unlike) + unit(distance), atol=1e-6
    )
    strip = np.ones((h, w), bool)
    strip[2:-2, 2:-2] = False  # 15 px at side 400 is 1.5 at side 40
    around = np.bincount(cells[strip], minlength=512) / strip.sum()
    expected = unit([chi(share[i], around) for i in range(5)])
    expected += unit(
        [float(np.linalg.norm(colors[i] - lab[strip].mean(axis=0, dtype=float))) for i in range(5)]
    )
    np.testing.assert_allclose(
        drfi_lite.backgroundness(labels, lab, cells, colors, share), expected, atol=1e-5
    )


def test_seclusion_is_the_cheapest_way_out(
    cut: tuple[NDArray[np.uint8], NDArray[np.int32]],
) -> None:
    place = r.layout(cut[1])
    apart = np.abs(
        np.subtract.outer(np.array([10.0, 30, 80, 60, 5]), np.array([10.0, 30, 80, 60, 5]))
    )
    length = drfi_lite.seclusion(place, drfi_lite.paths(place, apart))
    assert length[3] == pytest.approx(30 - drfi_lite.CLIP, abs=1e-4), (
        "by region 1: |60 - 30| less what shading makes"
    )
    assert np.delete(length, 3).max() < 1e-5, "all others touch the rim"


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud])
def test_scores_turn_with_the_image(
    cut: tuple[NDArray[np.uint8], NDArray[np.int32]], turn: object
) -> None:
    image, labels = cut
    flip, lab = turn, drfi_lite.to_lab(image)
    bins = drfi_lite.bins_of(lab, drfi_lite.BINS)
    plain = drfi_lite.score(labels, lab, bins)
    turned = drfi_lite.score(*(flip(values).copy() for values in (labels, lab, bins)))  # type: ignore[operator]
    np.testing.assert_allclose(turned, plain, atol=1e-6)


def test_finds_discs_and_their_mirror_images() -> None:
    maker = DrfiLite().maker()
    for seed in (40, 41, 42):
        image, truth = scenes.disc(seed, 96, 128)
        masks = [maker(p, Path("x")) > 0.5 for p in (image, image[:, ::-1].copy())]
        assert quality.scores(masks[0], truth)["foreground_iou"] > 85
        assert quality.scores(masks[1][:, ::-1], masks[0])["foreground_iou"] > 95


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (8, 8), (300, 9)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_and_tiny_images_have_no_foreground(size: tuple[int, int], value: int) -> None:
    saliency = DrfiLite().maker()(np.full((*size, 3), value, np.uint8), Path("x"))
    assert np.isfinite(saliency).all()
    assert saliency.max() == 0


def test_engines_agree_about_a_disc() -> None:
    image, truth = scenes.disc(43, 96, 128)
    for engine, name in (("opencv", "opencv"), ("skimage", "scikit-image")):
        method = DrfiLite(engine=engine)  # type: ignore[arg-type]
        assert method.describe_engine().startswith(name)
        assert quality.scores(method.maker()(image, Path("x")) > 0.5, truth)["foreground_iou"] > 70


def test_chi_square_of_all_pairs_is_that_of_each_pair() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((9, 40)) * (rng.random((9, 40)) < 0.2)
    p[:, 0] += 0.01
    p[3] = p[4]
    p /= p.sum(axis=1, keepdims=True)
    each = np.array([[r.chi_square(a, b) for b in p] for a in p])
    np.testing.assert_allclose(r.chi_square_pairs(p), each, atol=1e-12)


@pytest.mark.parametrize(("side", "most"), [(32, 90), (24, 60)])
def test_a_small_image_is_not_cut_into_its_noise(side: int, most: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    how = DrfiLite()
    for level in how.levels:
        areas = np.bincount(r.segment_scaled(image, level, how.engine, how.min_region_px).ravel())
        assert areas.min() >= how.min_region_px
        assert 1 < len(areas) <= most, "333 at 32 px without a smallest size"
