"""Schedules as plain functions of the step: k is the 0-based optimiser step, K the number of steps."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig


def rising(base: float, k: int, K: int) -> float:
    """`1 - (1 - base) (1 + cos(pi k / K)) / 2`: from base at k = 0 to 1 at k = K.

    HARL's alpha and lambda (section 3.3, "cosine schedule"), BYOL's tau (appendix J).
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * k / K)) / 2


def falling(base: float, k: int, K: int) -> float:
    """`base (1 + cos(pi k / K)) / 2`: from base to 0, as the official script's weight of the whole picture."""
    return base * (1 + math.cos(math.pi * k / K)) / 2


def scheduled(base: float, schedule: str, k: int, K: int, config: "PretrainConfig") -> float:
    """A weight that rises, falls or stays, every step or only with each epoch (`schedule_tick`)."""
    if config.schedule_tick == "epoch":
        k, K = k * config.epochs // K, config.epochs
    if schedule == "fixed":
        return base
    return {"cosine": rising, "falling": falling}[schedule](base, k, K)


def momentum(config: "PretrainConfig", k: int, K: int) -> float:
    """tau, the EMA's momentum: rising to 1 (BYOL), or fixed (MoCo)."""
    return config.tau_base if config.tau_schedule == "fixed" else rising(config.tau_base, k, K)


def learning_rate(peak: float, k: int, K: int, W: int) -> float:
    """Linear from 0 to `peak` over W warm-up steps, then cosine to 0 at step K, without restarts."""
    if k < W:
        return peak * k / W
    return peak * (1 + math.cos(math.pi * (k - W) / (K - W))) / 2


def stepped(peak: float, k: int, K: int, W: int) -> float:
    """Linear warm-up, then a tenth after each third of the run: epochs 30 and 60 of 90 (He et al. 2016)."""
    return peak * k / W if k < W else peak * 0.1 ** (3 * k // K)
