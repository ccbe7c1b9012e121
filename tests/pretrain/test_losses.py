"""HARL's objective against ten lines of NumPy, and its invariants (docs/fidelity.md 1.2)."""

import math

import numpy as np
import pytest
import torch

from pretrain import losses, schedules


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distance_of_equal_orthogonal_and_opposite() -> None:
    p = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    z = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-4.0, 0.0]])
    assert losses.regression(p, z).tolist() == pytest.approx([0.0, 2.0, 4.0], abs=1e-6)


def test_distance_is_that_of_unit_vectors() -> None:
    p, z = rand(6, 9), rand(6, 9, seed=1)
    u, v = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (p, z))
    np.testing.assert_allclose(losses.regression(p, z).numpy(), ((u - v) ** 2).sum(1), rtol=1e-5)


def test_masked_pool_against_numpy() -> None:
    h, M = rand(3, 5, 4, 4), (rand(3, 1, 4, 4, seed=2) > 0).float()
    for b in range(3):
        cells = M[b, 0].numpy().astype(bool)
        expected = h[b].numpy()[:, cells].mean(axis=1)
        np.testing.assert_allclose(losses.masked_pool(h, M)[b].numpy(), expected, rtol=1e-5)
    n = M.sum(dim=(2, 3))
    torch.testing.assert_close(losses.masked_pool(h, M, "gap"), losses.masked_pool(h, M) * n / 16)
    torch.testing.assert_close(
        losses.masked_pool(h, M, "area_plus_one"), losses.masked_pool(h, M) * n / (n + 1)
    )


def test_all_ones_mask_pools_like_the_whole_and_an_empty_one_gives_zeros() -> None:
    h = rand(2, 5, 7, 7)
    torch.testing.assert_close(losses.masked_pool(h, torch.ones(2, 1, 7, 7)), h.mean(dim=(2, 3)))
    assert not losses.masked_pool(h, torch.zeros(2, 1, 7, 7)).any()


def test_invalid_samples_do_not_count_and_none_gives_zero_with_zero_gradient() -> None:
    distance = torch.tensor([1.0, 100.0, 3.0], requires_grad=True)
    assert losses.mean_over_valid(distance, torch.tensor([True, False, True])).item() == 2.0
    nothing = losses.mean_over_valid(distance, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert distance.grad is not None
    assert not distance.grad.any()


def test_weights_of_the_terms() -> None:
    D_w, D_f, D_b = torch.tensor(2.0), torch.tensor(3.0), torch.tensor(5.0)
    L_mask = losses.mask_loss(D_f, D_b, 0.7)
    assert L_mask.item() == pytest.approx(0.7 * 3 + 0.3 * 5)
    assert losses.hybrid_loss(D_w, L_mask, 0.6).item() == pytest.approx(0.6 * 2 + 0.4 * 3.6)
    # Swapped regions, swapped weights.
    assert losses.mask_loss(D_b, D_f, 0.3).item() == pytest.approx(L_mask.item())


def test_mask_cells_are_those_half_covered() -> None:
    mask = torch.zeros(1, 1, 224, 224)
    mask[..., :112, :] = 1  # rows 0-2 wholly, row 3 to a half
    assert losses.downsample_mask(mask, (7, 7))[0, 0, :, 0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    mask[..., 111, :] = 0
    assert losses.downsample_mask(mask, (7, 7))[0, 0, :, 0].tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_a_tiny_object_keeps_its_fullest_cell_and_an_empty_mask_none() -> None:
    mask = torch.zeros(2, 1, 224, 224)
    mask[0, 0, 100:104, 30:40] = 1  # cell (3, 0) holds 2 columns of it, cell (3, 1) the other 8
    cells = losses.downsample_mask(mask, (7, 7))
    assert cells[0].sum() == 1
    assert cells[0, 0, 3, 1] == 1
    assert cells[1].sum() == 0


def test_the_official_any_rule_dilates() -> None:
    """A centred disc of 25 % of the image lights 25 of 49 cells by `any` (docs/fidelity.md 1.1)."""
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    disc = ((y - 111.5) ** 2 + (x - 111.5) ** 2 < 224**2 * 0.25 / math.pi).float()[None, None]
    assert losses.downsample_mask(disc, (7, 7), "any").sum() == 25
    assert losses.downsample_mask(disc, (7, 7)).sum() < 16


def test_schedules_at_start_middle_and_end() -> None:
    for base in (0.3, 0.7, 0.996):
        assert schedules.rising(base, 0, 100) == pytest.approx(base)
        assert schedules.rising(base, 50, 100) == pytest.approx((base + 1) / 2)
        assert schedules.rising(base, 100, 100) == pytest.approx(1)
    peak = 0.2 * 4096 / 256
    rates = [schedules.learning_rate(peak, k, 1000, 100) for k in range(1001)]
    assert rates[0] == 0
    assert rates[100] == pytest.approx(3.2)
    assert rates[550] == pytest.approx(1.6)
    assert rates[1000] == pytest.approx(0)
    assert max(rates) == rates[100]
