"""What BYOL, SimCLR, MoCo v2 and SimSiam share: two views, pooled vectors, one distance between them.

HARL asks for that distance once per region (whole picture, foreground, background); alone, each method asks once.
"""

from typing import Protocol

from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.methods.method import Batch, Method, StepOutput

REGIONS = ("whole", "foreground", "background")


class Siamese(Method, Protocol):
    """A method whose loss is a distance of pooled features.

    Attributes:
        online_views, target_views: which views go through the online and through the target network.
    """

    online_views: tuple[int, ...]
    target_views: tuple[int, ...]

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps [B, C, S, S] of the online views, and of the target views without gradient."""

    def distance(self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: int) -> tuple[Tensor, Tensor]:
        """The loss of pooled features, and one view's projections for the monitor of collapse.

        Args:
            v: [B, C] for each online view.
            u: [B, C] for each target view.
            valid: [B] bool, the samples that count; None: all.
            region: which of REGIONS, for what is kept per region.

        Returns:
            A scalar float32, and [B, D] detached.
        """

    def values(self, k: int, K: int) -> dict[str, float]:
        """The method's own schedules at step k, for metrics.jsonl."""


class OnBase:
    """A method with a loss of its own for the networks of another, its base, which also looks after them."""

    def __init__(self, base: Siamese, config: PretrainConfig) -> None:
        self.base, self.backbone, self.config = base, base.backbone, config
        self.constant_lr: list[nn.Module] = getattr(base, "constant_lr", [])

    def after_step(self, k: int, K: int) -> None:
        """What the base does: move the target, fill the queue."""
        self.base.after_step(k, K)

    def trained(self) -> list[nn.Module]:
        """The base's."""
        return self.base.trained()

    @property
    def module(self) -> nn.Module:
        """The base's."""
        return self.base.module


def whole_picture_step(method: Siamese, batch: Batch, k: int, K: int) -> StepOutput:
    """The method on its own: global average pooling, every sample counts."""
    online, target = method.features(batch.views)
    v, u = ([h.float().mean(dim=(2, 3)) for h in maps] for maps in (online, target))
    loss, z = method.distance(v, u, None, 0)
    return StepOutput(loss, {**method.values(k, K), "feature_std": std_of_l2_normalized(z)})
