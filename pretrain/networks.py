"""What methods build their networks of: heads on the backbone, and targets that follow it."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Head(nn.Module):
    """Apply layers in turn: a projector g or a predictor q, [B, inputs] to [B, outputs]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, v: Tensor) -> Tensor:
        """Return [B, outputs]."""
        output: Tensor = self.layers(v)
        return output


def mlp(inputs: int, hidden: int, outputs: int, *, bias: bool = False) -> Head:
    """Return BYOL's head: Linear, BN, ReLU, Linear.

    The last layer has no bias (BYOL's released code), unless asked for (docs/fidelity.md 1.1).
    2048-4096-512 has 10,498,048 parameters, 512-4096-512 has 4,206,592.
    """
    return Head(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs, bias=bias),
    )


def target_of(online: M) -> M:
    """Return a copy of a network that no gradient reaches.

    The copy runs in train mode and its batch-norm buffers evolve on their own. Only parameters are
    averaged [BYOL].
    """
    target = copy.deepcopy(online)
    target.requires_grad_(False)
    return target


@torch.no_grad()
def follow(online: nn.Module, target: nn.Module, tau: float) -> None:
    """Move the target: xi <- tau xi + (1 - tau) theta, parameters only (HARL's equation 3)."""
    followers: list[Tensor] = list(target.parameters())
    leaders: list[Tensor] = list(online.parameters())
    torch._foreach_mul_(followers, tau)  # two kernels on a GPU, whatever the number of tensors
    torch._foreach_add_(followers, leaders, alpha=1 - tau)
