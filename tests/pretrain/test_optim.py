"""The two forms of LARS's momentum, and learning rates that move by epoch."""

import math

import numpy as np
import pytest
import torch

from harl_bench.core.errors import UsageError
from pretrain import recipe as recipes
from pretrain.optim import Lars, set_learning_rate
from tests.pretrain.test_methods import small

RATES = (0.4, 0.4, 0.1, 0.7)


def lars(scaled: bool, rates: tuple[float, ...]) -> list[np.ndarray]:
    """Return a weight and a bias after steps with these rates and constant gradients."""
    w, b = torch.arange(1.0, 7.0).view(2, 3).requires_grad_(), torch.ones(3).requires_grad_()
    groups = [
        {"params": [w], "weight_decay": 0.1, "adapted": True},
        {"params": [b], "weight_decay": 0.0, "adapted": False},
    ]
    optimizer = Lars(groups, 0.1, momentum=0.9, trust_coefficient=0.01, ratio="byol", scaled=scaled)
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        w.grad, b.grad = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]), torch.full((3,), 0.2)
        optimizer.step()
    return [p.detach().numpy() for p in (w, b)]


def simclrs(rates: tuple[float, ...]) -> list[np.ndarray]:
    """Return what apply_gradients of SimCLR's lars_optimizer.py (classic_momentum) makes of it."""
    w, b = np.arange(1.0, 7.0).reshape(2, 3), np.ones(3)
    v_w, v_b = np.zeros((2, 3)), np.zeros(3)
    for rate in rates:
        grad = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]) + 0.1 * w
        trust_ratio = 0.01 * np.linalg.norm(w) / np.linalg.norm(grad)
        v_w = 0.9 * v_w + rate * trust_ratio * grad
        v_b = 0.9 * v_b + rate * np.full(3, 0.2)
        w, b = w - v_w, b - v_b
    return [w, b]


def test_scaled_momentum_is_simclrs() -> None:
    for ours, theirs in zip(lars(True, RATES), simclrs(RATES), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_two_forms_differ_where_the_rate_changes() -> None:
    for constant in ((0.4,), (0.4, 0.4)):
        for plain, scaled in zip(lars(False, constant), lars(True, constant), strict=True):
            np.testing.assert_allclose(plain, scaled, rtol=1e-6)
    for plain, scaled in zip(lars(False, RATES), lars(True, RATES), strict=True):
        assert abs(plain - scaled).max() > 1e-2


def rates(name: str, per_epoch: int, *overrides: str) -> list[float]:
    """Return the rate of every step of a recipe's run."""
    config = recipes.load(name, None, overrides)
    K, W = config.epochs * per_epoch, round(config.warmup_epochs * per_epoch)
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "constant": False}], lr=1.0)
    values = []
    for k in range(K):
        values.append(set_learning_rate(optimizer, config, k, K, W))
        assert optimizer.param_groups[0]["lr"] == values[-1]
    return values


@pytest.mark.parametrize(
    ("name", "peak", "epochs"),
    [
        ("mocov2-200ep", 0.03, 200),
        ("simsiam-100ep", 0.05, 100),
        ("saliency_crop-mocov2-800ep", 0.06, 800),
    ],
)
def test_published_rates_move_by_epoch(name: str, peak: float, epochs: int) -> None:
    """adjust_learning_rate of the authors' main_moco.py and main_simsiam.py."""
    values = rates(name, 3)
    expected = [peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs)) for epoch in range(epochs)]
    assert values == pytest.approx([rate for rate in expected for _ in range(3)], rel=1e-9)
    by_step = rates(name, 3, "lr_tick=step")
    assert by_step[::3] == pytest.approx(expected, rel=1e-9)
    assert all(a < b for a, b in zip(by_step[1:3], values[1:3], strict=True))


def test_golden_rates_of_moco() -> None:
    values = rates("mocov2-200ep", 2)
    assert [values[2 * epoch + 1] for epoch in (0, 50, 100, 150, 199)] == pytest.approx(
        [0.03, 0.0256066, 0.015, 0.0043934, 1.8505e-6], rel=1e-4
    )


def test_warm_up_moves_by_step() -> None:
    values = rates("mocov2-toy", 4, "lr_tick=epoch", "warmup_epochs=1.5", "base_lr=16")
    assert values[:6] == pytest.approx([k / 6 for k in range(6)])
    # The cosine begins at step 6 of 16; epochs 2 and 3 begin at steps 8 and 12.
    cosine = [0.5 * (1 + math.cos(math.pi * (k - 6) / 10)) for k in (6, 8, 12)]
    assert values[6:] == pytest.approx([cosine[0]] * 2 + [cosine[1]] * 4 + [cosine[2]] * 4)


def test_an_epoch_without_its_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="without accumulation_ramp"):
        small("byol", lr_tick="epoch", accumulation_ramp=True)
