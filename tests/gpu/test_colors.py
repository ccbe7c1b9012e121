"""Colors and normalization of a batch: a GPU's are the CPU's."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain import colors, views
from pretrain.batch import Batch
from pretrain.data import on_device
from tests.gpu.conftest import Agree

pytestmark = pytest.mark.gpu
N, SIDE = 24, 48
RECIPES = {"byol 1": views.BYOL_VIEWS[0], "byol 2": views.BYOL_VIEWS[1], "simclr": views.T}


def images() -> Tensor:
    """Smooth images with grain, [N, 3, SIDE, SIDE] uint8."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(N, 3, 5, 5, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear")
    grain = 0.1 * torch.randn(N, 1, SIDE, SIDE, generator=g)
    return ((smooth + grain).clamp(0, 1) * 255).to(torch.uint8)


def drawn(recipe: views.View) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(np.stack([colors.draw(recipe, rng) for _ in range(N)]))


@pytest.mark.parametrize("name", RECIPES)
def test_colors(name: str, both: Any, agree: Agree) -> None:
    """But for pixels at the step of solarization or at a turn of the hue."""
    draws = drawn(RECIPES[name])
    reference, value = both(lambda device: colors.apply_batch(images().to(device), draws).cpu())
    assert ((value - reference).abs() > 0.05).float().mean() < 1e-3
    agree("colors", value, reference, 1e-2)


def test_an_image_is_colored_as_opencv_does(device: torch.device) -> None:
    """Within the rounding to 8 bits after each of OpenCV's operations."""
    draws = drawn(RECIPES["byol 1"])
    batch = colors.apply_batch(images().to(device), draws).cpu().permute(0, 2, 3, 1).numpy()
    pixels = np.ascontiguousarray(images().permute(0, 2, 3, 1).numpy())
    singles = np.stack([colors.apply(*pair) for pair in zip(pixels, draws.numpy(), strict=True)])
    assert np.abs(batch - singles).mean() < 1.0


def test_a_batch_is_finished_on_its_device(both: Any, agree: Agree) -> None:
    two = torch.stack([images(), images().flip(3)])
    draws = torch.stack([drawn(recipe) for recipe in views.BYOL_VIEWS])
    masks = (two[:, :, :1] > 127).to(torch.uint8)
    batch = Batch(two, masks, torch.ones(N, dtype=torch.bool), colors=draws)

    def finished(device: torch.device) -> Batch:
        pinned = batch.pin_memory() if device.type == "cuda" else batch
        return on_device(pinned, device)

    reference, value = both(finished)
    assert value.views.device.type == value.masks.device.type
    assert torch.equal(value.masks.cpu(), reference.masks)
    agree("views", value.views, reference.views, 1e-2)
