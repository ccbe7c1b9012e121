"""Maps from features, crops from maps, weights from crops: against NumPy or a known limit."""

import numpy as np
import pytest
import torch

from harl_bench.core.errors import UsageError
from pretrain.augment import crop_box
from pretrain.saliency import maps as saliency
from pretrain.views import View

LOCAL = View(crop_area=(0.05, 0.3))
UNIFORM = np.zeros((7, 7), np.uint8)


def delta(i: int, j: int) -> np.ndarray:
    s = np.zeros((7, 7), np.uint8)
    s[i, j] = 200
    return s


def test_cosine_map_is_the_formula() -> None:
    F = torch.randn(3, 5, 7, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    for made, f in zip(saliency.saliency_map(F), F.double().numpy(), strict=True):
        v = f.mean(axis=(1, 2))
        s = np.array(
            [
                [
                    max(0, f[:, i, j] @ v / np.linalg.norm(f[:, i, j]) / np.linalg.norm(v))
                    for j in range(7)
                ]
                for i in range(7)
            ]
        )
        np.testing.assert_allclose(made.numpy(), (s - s.min()) / (s.max() - s.min()), atol=1e-5)


def test_activation_map_is_the_channel_sum() -> None:
    F = torch.rand(2, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    s = F.sum(dim=1)
    expected = (s - s.amin((1, 2), keepdim=True)) / (
        s.amax((1, 2), keepdim=True) - s.amin((1, 2), keepdim=True)
    )
    torch.testing.assert_close(saliency.saliency_map(F, "activation"), expected)


@pytest.mark.parametrize("kind", saliency.MAPS)
def test_maps_have_no_gradient_are_seven_by_seven_and_flat_ones_are_zero(kind: str) -> None:
    F = torch.rand(2, 4, 14, 14, requires_grad=True)
    made = saliency.saliency_map(F, kind)
    assert made.shape == (2, 7, 7)
    assert not made.requires_grad
    assert (made.amin(), made.amax()) == (0, 1)
    assert saliency.saliency_map(torch.full((1, 4, 7, 7), 0.3), kind).count_nonzero() == 0


def test_scaling_the_features_changes_no_map() -> None:
    F = torch.rand(2, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    for kind in saliency.MAPS:
        torch.testing.assert_close(
            saliency.saliency_map(F, kind), saliency.saliency_map(64 * F, kind)
        )


def test_unknown_map() -> None:
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        saliency.saliency_map(torch.rand(1, 2, 7, 7), "cosin")


def test_box_means_against_a_fine_raster() -> None:
    """Each cell painted as 40 x 40 pixels, boxes on pixel edges, mean of the pixels inside."""
    rng = np.random.default_rng(0)
    maps = rng.random((4, 7, 7))
    fine = maps.repeat(40, axis=1).repeat(40, axis=2)
    for _ in range(20):
        x = np.sort(rng.choice(281, (3, 4, 2), replace=True), axis=-1) + np.array([0, 1])
        y = np.sort(rng.choice(281, (3, 4, 2), replace=True), axis=-1) + np.array([0, 1])
        x, y = np.minimum(x, 280) - (x[..., :1] == 280), np.minimum(y, 280) - (y[..., :1] == 280)
        boxes = torch.from_numpy(
            np.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1) / 280
        ).float()
        made = saliency.box_means(torch.from_numpy(maps), boxes)
        expected = [
            [fine[b, y[n, b, 0] : y[n, b, 1], x[n, b, 0] : x[n, b, 1]].mean() for b in range(4)]
            for n in range(3)
        ]
        np.testing.assert_allclose(made.numpy(), expected, rtol=1e-3)


def test_weights_sum_to_one_and_are_uniform_where_nothing_is_salient() -> None:
    S = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    S[:, 2] = 0
    w = saliency.weights(S)
    torch.testing.assert_close(w.sum(0), torch.ones(6))
    torch.testing.assert_close(w[:, 2], torch.full((4,), 0.25))
    torch.testing.assert_close(w, saliency.weights(0.01 * S))
    torch.testing.assert_close(w[:, 0], S[:, 0] / S[:, 0].sum())


@pytest.mark.parametrize("flat", [UNIFORM, UNIFORM + 7])
def test_a_uniform_map_crops_as_without_guidance(flat: np.ndarray) -> None:
    """Left, top, width and height over 6,000 draws: means, spreads and fractions at edges agree."""
    n, width, height = 6000, 90, 60
    rng = np.random.default_rng(0)
    guided = np.array(
        [saliency.guided_box(width, height, LOCAL, flat, rng) for _ in range(n)], float
    )
    plain = np.array([crop_box(width, height, LOCAL, rng) for _ in range(n)], float)
    for a, b in zip(columns(guided, width, height), columns(plain, width, height), strict=True):
        assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt((a.var() + b.var()) / n)
        assert a.dtype == bool or abs(a.std() - b.std()) < 4.5 * np.sqrt((a.var() + b.var()) / n)


def columns(boxes: np.ndarray, width: int, height: int) -> list[np.ndarray]:
    left, top, right, bottom = boxes.T
    return [
        left,
        top,
        right - left,
        bottom - top,
        left == 0,
        top == 0,
        right == width,
        bottom == height,
    ]


@pytest.mark.parametrize(("i", "j"), [(3, 3), (2, 4), (0, 0), (6, 3), (6, 6)])
def test_a_delta_map_puts_its_cell_into_every_crop(i: int, j: int) -> None:
    """Centres lie in the cell (to half a pixel) where the box can be centred there at all."""
    rng = np.random.default_rng(0)
    width, height = 700, 490
    for _ in range(400):
        left, top, right, bottom = saliency.guided_box(width, height, LOCAL, delta(i, j), rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for start, end, size, cell in ((left, right, width, j), (top, bottom, height, i)):
            low, high = cell * size / 7, (cell + 1) * size / 7
            assert start < high  # the crop shows the cell
            assert end > low
            reachable = max(low, (end - start) / 2) < min(high, size - (end - start) / 2)
            assert not reachable or low - 1 <= (start + end) / 2 <= high + 1
            assert reachable or start == 0 or end == size


def test_chances_follow_the_map_and_its_scale_does_not_matter() -> None:
    """A tiny box: cells twice as salient are drawn twice as often; the temperature sharpens."""
    tiny = View(crop_area=(1e-4, 1e-4))
    s = np.zeros((7, 7))
    s[1, 1], s[5, 5] = 0.2, 0.4

    def share(values: np.ndarray, **more: float) -> float:
        rng = np.random.default_rng(0)
        return float(
            np.mean(
                [
                    saliency.guided_box(700, 700, tiny, values, rng, **more)[0] > 350
                    for _ in range(2000)
                ]
            )
        )

    assert share(s) == pytest.approx(2 / 3, abs=0.04)
    assert share(s) == share(1000 * s)
    assert share(s, temperature=0.5) == pytest.approx(4 / 5, abs=0.04)


def test_a_salient_corner_is_cropped_as_often_as_it_is_salient() -> None:
    """Few boxes can be centred there: the others are moved into the image and still show it."""
    s = np.zeros((7, 7), np.uint8)
    s[0, 0], s[3, 3] = 255, 1
    rng = np.random.default_rng(0)
    boxes = [saliency.guided_box(700, 700, LOCAL, s, rng) for _ in range(2000)]
    assert np.mean([left < 50 and top < 50 for left, top, _, _ in boxes]) > 0.98
    ring = np.full((7, 7), 255, np.uint8)
    ring[1:-1, 1:-1] = 1
    boxes = [saliency.guided_box(700, 700, LOCAL, ring, rng) for _ in range(2000)]
    edges = np.mean(
        [min(left, top) < 100 or max(right, bottom) > 600 for left, top, right, bottom in boxes]
    )
    assert edges > 0.98


def test_salient_box_prefers_what_the_map_shows_and_leaves_uniform_maps_alone() -> None:
    recipe = View(crop_area=(0.2, 1.0))
    s = delta(1, 1) + np.uint8(1)
    rng = np.random.default_rng(0)
    boxes = [saliency.salient_box(300, 300, recipe, s, rng) for _ in range(400)]
    shown = np.mean([box[0] < 80 and box[1] < 80 for box in boxes])
    plain = np.mean(
        [
            box[0] < 80 and box[1] < 80
            for box in (crop_box(300, 300, recipe, rng) for _ in range(400))
        ]
    )
    assert shown > plain + 0.1
    means = np.mean([(box[2] - box[0]) * (box[3] - box[1]) / 9e4 for box in boxes])
    flat = [saliency.salient_box(300, 300, recipe, UNIFORM, rng) for _ in range(2000)]
    free = [crop_box(300, 300, recipe, rng) for _ in range(2000)]
    areas = [np.mean([(b[2] - b[0]) * (b[3] - b[1]) / 9e4 for b in some]) for some in (flat, free)]
    assert areas[0] == pytest.approx(areas[1], abs=0.02)
    assert 0.2 < means < 1


def test_memory_averages_and_serves_what_was_finished_two_epochs_ago() -> None:
    memory = saliency.MapMemory(3)
    one, index = torch.zeros(1, 7, 7), torch.tensor([1])
    one[0, 2, 3] = 1
    memory.update(index, one)  # epoch 0: the first map is taken whole
    assert memory.current(index)[0, 2, 3] == 1
    memory.begin(1)
    memory.update(index, torch.zeros(1, 7, 7))
    assert memory.current(index)[0, 2, 3] == pytest.approx(230 / 255)  # 0.9 * 255 = 229.5
    assert memory.readable(1, 1).max() == 0
    assert memory.readable(2, 1)[2, 3] == 255
    assert memory.readable(3, 1)[2, 3] == 230
    memory.begin(2)
    assert memory.current(index)[0, 2, 3] == pytest.approx(230 / 255)  # carried over
    memory.update(torch.tensor([0]), one)
    assert memory.readable(3, 0).max() == 0  # not before epoch 4
    assert memory.readable(4, 0).max() == 255


def test_memory_survives_saving_and_stays_shared() -> None:
    memory, other = saliency.MapMemory(2), saliency.MapMemory(2)
    memory.begin(1)
    memory.update(
        torch.tensor([0]), torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0))
    )
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.slots, memory.slots)
    assert other.epoch == 1
    assert other.slots.is_shared()
