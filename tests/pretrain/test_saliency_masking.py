"""Cells and pixels that are masked: fractions of each region, fills, channels, focal squares."""

import numpy as np
import pytest
import torch

from harl_bench.nn.blur import high_pass
from pretrain.saliency import masking


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_foreground_cells_are_the_formula() -> None:
    maps = torch.randn(5, 7, 7, generator=generator()).exp()
    for made, a in zip(masking.foreground_cells(maps), maps.double().numpy(), strict=True):
        assert np.array_equal(made.numpy(), a >= a.mean() - 0.6 * a.std(ddof=1))


def test_masked_shares_are_the_same_in_foreground_and_background() -> None:
    """1,000 draws: within a cell on average, two in any, exactly floor(49 r) together."""
    g = generator()
    n_f = torch.randint(0, 28, (1000,), generator=g)  # phi up to 0.55
    order = torch.rand(1000, 49, generator=g).argsort(dim=1).argsort(dim=1)
    foreground = (order < n_f[:, None]).view(-1, 7, 7)
    r = 0.05 + 0.2 * torch.rand(1000, generator=g)
    cells = masking.even_cells(foreground, r, g)[:, 0]
    inside = (cells & foreground).sum(dim=(1, 2))
    outside = (cells & ~foreground).sum(dim=(1, 2))
    assert torch.equal(inside + outside, (49 * r).floor().long())
    error = torch.stack([inside - r * n_f, outside - r * (49 - n_f)])
    assert error.abs().max() <= 1.5
    assert (error.mean(dim=1).abs() < 1).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_maps_of_one_region_lose_the_same_number_of_cells(share: float) -> None:
    foreground = torch.full((40, 7, 7), share > 0)
    r = torch.linspace(0.05, 0.25, 40)
    cells = masking.even_cells(foreground, r, generator())
    assert torch.equal(cells.sum(dim=(1, 2, 3)), (49 * r + 1e-4).floor().long())
    negative = masking.salient_cells(foreground, torch.full((40,), 0.5), generator())
    assert negative.sum() == (40 * 24 if share else 0)  # round(24.5) to even


def test_above_the_cap_the_foreground_loses_less_than_its_share() -> None:
    foreground = torch.zeros(200, 7, 7, dtype=torch.bool)
    foreground[:, :5] = True  # phi 35 / 49
    cells = masking.even_cells(foreground, torch.full((200,), 0.25), generator())[:, 0]
    assert (cells & foreground).sum(dim=(1, 2)).tolist() == [round(0.25 * 0.55 * 49)] * 200
    assert (cells & ~foreground).sum(dim=(1, 2)).tolist() == [12 - 7] * 200


def test_hard_negatives_lose_foreground_alone_and_every_cell_can_be_lost() -> None:
    foreground = torch.zeros(300, 7, 7, dtype=torch.bool)
    foreground[:, 2:5, 1:5] = True
    cells = masking.salient_cells(foreground, torch.full((300,), 0.6), generator())[:, 0]
    assert not (cells & ~foreground).any()
    assert (cells.sum(dim=(1, 2)) == round(0.6 * 12)).all()
    assert (cells.any(dim=0) == foreground[0]).all()


def test_seeds_reproduce_masks_and_channels_differ() -> None:
    foreground = torch.rand(8, 7, 7, generator=generator()) > 0.5
    r = torch.full((8,), 0.25)
    once, again, other = (masking.even_cells(foreground, r, generator(s), 3) for s in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once[:, 0], once[:, 1])
    assert torch.equal(once.sum(dim=(2, 3)), once.sum(dim=(2, 3))[:, :1].expand(-1, 3))


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_fills_change_masked_cells_alone(fill: str) -> None:
    x = torch.randn(4, 3, 70, 70, generator=generator())
    cells = torch.rand(4, 1, 7, 7, generator=generator()) > 0.6
    where = masking.to_pixels(cells, (70, 70))
    made = masking.FILLS[fill](x, where)
    painted = cells.repeat_interleave(10, dim=2).repeat_interleave(10, dim=3).expand(-1, 3, -1, -1)
    assert torch.equal((made != x), painted)
    if fill == "mean":
        expected = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(made[painted], expected[painted])
    else:
        assert made[painted].std() < 0.2 * x.std()


def test_high_pass_takes_slow_changes_and_noise_fills_after_it() -> None:
    from torchvision.transforms.v2 import functional

    x = torch.randn(2, 3, 64, 64, generator=generator()) + 5
    filtered = high_pass(x)
    torch.testing.assert_close(
        filtered, x - functional.gaussian_blur(x, [11, 11], [5.0, 5.0]), atol=1e-5, rtol=0
    )
    assert filtered.mean().abs() < 0.01
    where = masking.to_pixels(torch.rand(2, 3, 8, 8, generator=generator()) > 0.5, (64, 64))
    made = masking.fill_noise(filtered, where, 0.18, generator())
    assert torch.equal(made[~where], filtered[~where])
    assert made[where].std() == pytest.approx(0.18, rel=0.03)


def test_varied_masks_come_as_often_as_the_code_says() -> None:
    """Of 2,000 masks a fifth is focal (all but a square), 30 % of the rest equal in all channels."""
    foreground = (torch.rand(1, 7, 7, generator=generator()) > 0.5).expand(2000, -1, -1)
    masks = masking.query_pixels(
        foreground, torch.full((2000,), 0.2), (28, 28), "high_pass", generator()
    )
    assert masks.shape == (2000, 3, 28, 28)
    one = masks.float().mean(dim=(1, 2, 3))
    focal = (one - (1 - 25**2 / 28**2)).abs() < 1e-6  # side 200 / 224 of 28
    same = (masks == masks[:, :1]).flatten(1).all(dim=1) & ~focal
    assert focal.float().mean() == pytest.approx(0.2, abs=0.03)
    assert same[~focal].float().mean() == pytest.approx(0.3, abs=0.04)
    negative = masking.negative_pixels(
        foreground, torch.full((2000,), 0.5), (28, 28), "high_pass", generator()
    )
    # Side 130 / 224 of 28.
    square = (negative.float().mean(dim=(1, 2, 3)) - 16**2 / 28**2).abs() < 1e-6
    assert square.float().mean() == pytest.approx(0.2, abs=0.04)
