"""Losses and pooling: a GPU's values and gradients are the CPU's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain import losses
from tests.gpu.conftest import Agree

pytestmark = pytest.mark.gpu
B, D, Q = 32, 24, 64


def vectors(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VALID = vectors(9, B) > -0.5
OWN = torch.where(vectors(8, B) > 0, vectors(7, B).tanh(), torch.full((B,), losses.FAR))
QUEUE = torch.nn.functional.normalize(vectors(6, Q, D), dim=1)
COUNTS = vectors(5, Q) > -1
CASES: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]] = {
    "regression": (losses.regression, ()),
    "regression of valid": (
        lambda p, z, valid: losses.mean_over_valid(losses.regression(p, z), valid),
        (VALID,),
    ),
    "nt_xent": (losses.nt_xent, (0.1,)),
    "nt_xent of valid": (losses.nt_xent, (0.1, VALID)),
    "nt_xent with hard negatives": (losses.nt_xent, (0.1, None, OWN)),
    "info_nce": (losses.info_nce, (QUEUE, COUNTS, 0.2)),
    "info_nce of valid": (losses.info_nce, (QUEUE, COUNTS, 0.2, VALID)),
    "info_nce with hard negatives": (losses.info_nce_each, (QUEUE, COUNTS, 0.2, OWN)),
    "hybrid": (
        lambda p, z: losses.hybrid_loss(
            losses.regression(p, z),
            losses.mask_loss(p.square().mean(1), z.square().mean(1), 0.3),
            0.7,
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradients(name: str, both: Any, agree: Agree) -> None:
    function, more = CASES[name]

    def values(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        a, b = (vectors(seed, B, D).to(device).requires_grad_() for seed in (0, 1))
        loss = function(a, b, *(x.to(device) if isinstance(x, Tensor) else x for x in more))
        loss.mean().backward()
        return loss.detach(), a.grad, b.grad

    reference, value = both(values)
    agree("loss", value[0], reference[0], 1e-5)
    agree("gradients", value[1:], reference[1:], 1e-4)


@pytest.mark.parametrize("how", ["mean", "gap", "area_plus_one"])
@pytest.mark.parametrize("rule", ["area", "nearest", "any"])
def test_masked_pooling(rule: str, how: str, both: Any, agree: Agree) -> None:
    mask = (vectors(3, 8, 1, 8, 8) > 0.3).float().repeat_interleave(8, 2).repeat_interleave(8, 3)
    mask[0], mask[1] = 0, 1

    def values(device: torch.device) -> tuple[Tensor, Tensor]:
        cells = losses.downsample_mask(mask.to(device), (7, 7), rule)
        return cells, losses.masked_pool(vectors(4, 8, 16, 7, 7).to(device), cells, how)

    reference, value = both(values)
    assert torch.equal(value[0].cpu(), reference[0])
    agree("pooled", value[1], reference[1], 1e-5)
