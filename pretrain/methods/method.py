"""What a method is: a module whose forward is its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torchvision
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.batch import Batch
from pretrain.config import PretrainConfig
from pretrain.data import Cells, TwoViews
from pretrain.images import Images
from pretrain.losses import downsample_mask, feature_std
from pretrain.methods import method_class
from pretrain.views import views_of

REGIONS = ("whole", "foreground", "background")
UNSEEN = partial(downsample_mask, S=(1, 1), rule="nearest")  # masks that nobody looks at


@dataclass(frozen=True)
class StepOutput:
    """The loss to minimise, and numbers for metrics.jsonl.

    Tensors among them are read only where they are logged.
    """

    loss: Tensor
    logs: Mapping[str, float | Tensor]


class Method(nn.Module):
    """A network and its loss.

    `forward(batch, k, K)` returns the StepOutput of one batch at optimiser step k of K. It is
    called several times a step where gradients are accumulated. What requires gradients is trained,
    and the state dict is the checkpoint.

    Attributes:
        configs: the class of the configuration, by the base's name; "" for a method without one.
        backbone: the ResNet that is measured afterwards.
        constant_lr: modules whose learning rate does not decay.
        dim: D, the width of the projections whose collapse is watched.
        traced: the functions that `compile=true` makes one graph of each. They compute with tensors
            alone: numbers that change with the step would make a new graph for each.
    """

    configs: ClassVar[Mapping[str, type[PretrainConfig]]]
    traced: ClassVar[Sequence[str]] = ("forward",)
    backbone: torchvision.models.ResNet
    constant_lr: Sequence[nn.Module] = ()
    dim: int = 1

    def after_step(self, k: int, K: int) -> None:
        """Do what follows the optimiser step: move a target, fill a queue."""

    def compile_step(self, backend: str = "inductor") -> None:
        """Replace the traced functions by compiled ones; parameters and their names stay."""
        for name in self.traced:
            function = torch.compile(getattr(self, name), dynamic=False, backend=backend)
            setattr(self, name, function)

    @classmethod
    def dataset(cls, images: Images, config: PretrainConfig, *, unfinished: bool) -> TwoViews:
        """Return the views to train on.

        `unfinished` leaves colors and normalization to the device.
        """
        return TwoViews(
            images,
            views=views_of(config),
            size=config.image_size,
            seed=config.seed,
            unfinished=unfinished,
            cells=cls.cells(config),
        )

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return how many images of `image_size` px go through the backbone, and wait there for the
        backward pass, for each image of a batch.
        """
        return len(views_of(config))

    @classmethod
    def cells(cls, config: PretrainConfig) -> Cells | None:
        """Return how data workers shrink masks to what the method sees; None: they stay whole."""
        return None if config.needs_masks else UNSEEN

    def attach(self, dataset: TwoViews) -> None:
        """Share with the data workers what cropping needs of the method."""


class Siamese(Method):
    """A method that compares pooled features of two views: BYOL, SimCLR, MoCo v2, SimSiam.

    HARL compares once per region (whole image, foreground, background). Alone, each method compares
    once.

    Attributes:
        online_views, target_views: which views go through the online and through the target
            network.
    """

    traced = ("losses",)
    online_views: tuple[int, ...] = (0, 1)
    target_views: tuple[int, ...] = (0, 1)

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return maps [B, C, S, S] of the online views, and of the target views (no gradient)."""
        return [resnet.dense_features(self.backbone, x) for x in views], []

    def compare(
        self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: str
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of pooled features, and one view's projections [B, D] for the monitor of
        collapse.

        Args:
            v: [B, C] for each online view.
            u: [B, C] for each target view.
            valid: [B] bool, the samples that count; None: all.
            region: one of REGIONS, for what is kept per region.
        """
        raise TypeError(f"{type(self).__name__} compares nothing")

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return one for each online view."""
        return len(cls.online_views)

    def keep(self, region: str, z: Tensor, valid: Tensor | None) -> None:
        """Keep what `after_step` needs of the projections that `compare` returned."""

    def log_values(self, k: int, K: int) -> dict[str, float]:
        """Return the method's own schedules at step k, for metrics.jsonl."""
        return {}

    def forward(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Compare global average pools; every sample counts."""
        loss, z, spread = self.losses(batch.views)
        self.keep("whole", z, None)
        return StepOutput(loss, {**self.log_values(k, K), "feature_std": spread})

    def losses(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of whole images, one view's projections [B, D], and their spread."""
        online, target = self.features(views)
        v, u = ([global_pool(h) for h in maps] for maps in (online, target))
        loss, z = self.compare(v, u, None, "whole")
        return loss, z, feature_std(z)


class Wrapper(Method):
    """A method with a loss of its own on the networks of a siamese method, its base."""

    base: Siamese

    def __init__(
        self, config: PretrainConfig, base: str, *, regions: Sequence[str] = REGIONS[:1]
    ) -> None:
        super().__init__()
        self.base = method_class(base)(config, regions)
        self.constant_lr, self.dim = self.base.constant_lr, self.base.dim

    @property
    def backbone(self) -> torchvision.models.ResNet:  # type: ignore[override]
        """The base's backbone."""
        return self.base.backbone

    def after_step(self, k: int, K: int) -> None:
        """Move the base's target, fill its queue."""
        self.base.after_step(k, K)


def global_pool(h: Tensor) -> Tensor:
    """Return the mean of [B, C, S, S] over the map: [B, C] float32."""
    return h.float().mean(dim=(2, 3))
