"""The optimisers, LARS as BYOL has it and SGD: which parameters decay, adapt, keep their rate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from pretrain.config import PretrainConfig
from pretrain.methods.method import Method
from pretrain.schedules import learning_rate, stepped

TINY = 1e-8  # in the divisor of the official code's ratio


class Lars(Optimizer):
    """LARS (You et al. 2017) in BYOL's arithmetic: d = g + wd w, v <- m v + r d, w <- w - lr v.

    r = eta |w| / |d|, and 1 where a norm is 0 or the group is not adapted. `ratio="official"`
    divides by |g| + wd |w| + 1e-8, as HARL's PyTorch code (and lightly) do. With `scaled` the
    learning rate is inside the momentum, as in SimCLR's lars_optimizer.py: v <- m v + lr r d,
    w <- w - v. All of it is float32, also under bf16 autocast: parameters and their gradients are
    float32 there.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float,
        trust_coefficient: float,
        ratio: str,
        scaled: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "adapted": False}
        super().__init__(params, defaults)
        self.trust_coefficient, self.ratio, self.scaled = trust_coefficient, ratio, scaled

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "the loss is computed before"
        for group in self.param_groups:
            w: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not w:
                continue
            g: list[Tensor] = [p.grad for p in w if p.grad is not None]
            d: list[Tensor] = list(torch._foreach_add(g, w, alpha=group["weight_decay"]))
            if group["adapted"]:
                torch._foreach_mul_(d, self._ratios(w, g, d, group["weight_decay"]))
            for p in w:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            v: list[Tensor] = [self.state[p]["momentum"] for p in w]
            torch._foreach_mul_(v, group["momentum"])
            inside, outside = (group["lr"], 1.0) if self.scaled else (1.0, group["lr"])
            torch._foreach_add_(v, d, alpha=inside)
            torch._foreach_add_(w, v, alpha=-outside)

    def _ratios(
        self, w: list[Tensor], g: list[Tensor], d: list[Tensor], decay: float
    ) -> list[Tensor]:
        """r of each tensor, as scalars on its device."""
        w_norm = torch.stack(torch._foreach_norm(w))
        if self.ratio == "official":
            divisor = torch.stack(torch._foreach_norm(g)) + decay * w_norm + TINY
        else:
            divisor = torch.stack(torch._foreach_norm(d))
        r = self.trust_coefficient * w_norm / divisor
        return list(torch.where((w_norm > 0) & (divisor > 0), r, torch.ones_like(r)))


def build_optimizer(method: Method, config: PretrainConfig) -> Optimizer:
    """The recipe's optimiser; biases and batch norm take plain momentum SGD, without decay or
    adaptation.

    [HARL section 4, BYOL; `ndim == 1` is the official code's rule.] `decay_everything` decays them
    too: the SGD recipes of MoCo v2, SimSiam and torchvision. A group with `constant` keeps its peak
    learning rate (SimSiam's predictor).
    """
    constant = {id(p) for module in method.constant_lr for p in module.parameters()}
    groups = []
    for stays in (False, True):
        parameters = [
            p for p in method.parameters() if p.requires_grad and (id(p) in constant) == stays
        ]
        for vectors in (False, True):
            chosen = [p for p in parameters if (p.ndim <= 1) == vectors]
            decay = 0.0 if vectors and not config.decay_everything else config.weight_decay
            if chosen:
                group = {"params": chosen, "weight_decay": decay, "constant": stays}
                if config.optimizer == "lars":
                    group["adapted"] = not vectors
                groups.append(group)
    if config.optimizer == "sgd":
        return SGD(groups, lr=0.1, momentum=config.momentum)
    return Lars(
        groups,
        0.1,
        momentum=config.momentum,
        trust_coefficient=config.trust_coefficient,
        ratio=config.lars_ratio,
        scaled=config.lars_momentum == "scaled",
    )


def set_learning_rate(
    optimizer: Optimizer, config: PretrainConfig, k: int, K: int, W: int
) -> float:
    """Give each group its learning rate at step k of K, W of them warm-up; return the common one.

    With `lr_tick` epoch it is, after the warm-up, that of the epoch's first step, as in the code of
    MoCo and SimSiam.
    """
    peak = config.base_lr * config.batch_size / 256
    if config.lr_tick == "epoch" and k >= W:
        k = max(W, k - k % (K // config.epochs))
    rate = (stepped if config.lr_schedule == "step" else learning_rate)(peak, k, K, W)
    for group in optimizer.param_groups:
        group["lr"] = peak if group["constant"] else rate
    return rate
