"""Schedules as plain functions of the step: k is the 0-based optimiser step of K."""

import math


def rising(base: float, k: int, K: int) -> float:
    """`1 - (1 - base) (1 + cos(pi k / K)) / 2`: from base at k = 0 to 1 at k = K.

    HARL's alpha and lambda (section 3.3, "cosine schedule"), BYOL's tau (appendix J).
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * k / K)) / 2


def falling(base: float, k: int, K: int) -> float:
    """`base (1 + cos(pi k / K)) / 2`: from base to 0, the official script's lambda."""
    return base * (1 + math.cos(math.pi * k / K)) / 2


def scheduled(base: float, schedule: str, k: int, K: int) -> float:
    """Return a weight that rises ("cosine"), falls or stays."""
    if schedule == "fixed":
        return base
    return {"cosine": rising, "falling": falling}[schedule](base, k, K)


def learning_rate(peak: float, k: int, K: int, W: int) -> float:
    """Linear from 0 to `peak` over W warm-up steps, then cosine to 0 at step K, no restarts."""
    if k < W:
        return peak * k / W
    return peak * (1 + math.cos(math.pi * (k - W) / (K - W))) / 2


def stepped(peak: float, k: int, K: int, W: int) -> float:
    """Linear warm-up, then a tenth after each third: epochs 30 and 60 of 90 (He et al. 2016)."""
    return peak * k / W if k < W else peak * 0.1 ** (3 * k // K)
