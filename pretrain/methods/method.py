"""What the loop asks of a method."""

from dataclasses import dataclass, field
from typing import Protocol

import torchvision
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Args:
        views: [2, B, 3, H, W] float32, normalised.
        masks: [2, B, 1, H, W] float32, 1 is foreground; zeros where there is no mask.
        has_mask: [B] bool, False where the picture has no mask or a rejected one.
        unreadable: files that could not be decoded and were replaced by their neighbour, with the reason.
        error: a fault that must stop the run.
    """

    views: Tensor
    masks: Tensor
    has_mask: Tensor
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class StepOutput:
    """The loss to minimise, and numbers for metrics.jsonl."""

    loss: Tensor
    logs: dict[str, float]


class Method(Protocol):
    """A method is an nn.Module with a step; k is the optimiser step, K their number."""

    backbone: torchvision.models.ResNet

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """The loss of one batch."""

    def after_step(self, k: int, K: int) -> None:
        """What follows the optimiser step (EMA, queue)."""

    def trained(self) -> list[nn.Module]:
        """The modules whose parameters are optimised."""

    @property
    def module(self) -> nn.Module:
        """All state: for the checkpoint, device and train mode."""
