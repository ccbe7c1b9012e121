"""MoCo v2 (Chen et al. 2020; He et al. 2020): the other view's key among a queue of earlier keys."""

import copy

import torch
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad
from torch import Tensor, nn

from harl_bench.nn import distributed, resnet
from pretrain.config import PretrainConfig
from pretrain.ema import follow
from pretrain.losses import gathered, info_nce
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.siamese import REGIONS, whole_picture_step
from pretrain.schedules import momentum


class Queued(nn.Module):
    """Query network, key network that follows it, and a queue of keys for each region that is compared.

    The queue starts with random directions, as the authors' does. HARL fills one queue per region.
    """

    queue: Tensor
    counts: Tensor
    pointer: Tensor

    def __init__(self, backbone: nn.Module, projector: nn.Module, *, size: int, dim: int, regions: int) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector
        self.target_backbone, self.target_projector = copy.deepcopy(backbone), copy.deepcopy(projector)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projector)
        self.register_buffer("queue", nn.functional.normalize(torch.randn(regions, size, dim), dim=-1))
        self.register_buffer("counts", torch.ones(regions, size, dtype=torch.bool))  # keys of empty regions do not
        self.register_buffer("pointer", torch.zeros(regions, dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, region: int, keys: Tensor, counts: Tensor) -> None:
        """Replace the oldest keys: [B, D] L2-normalised and [B] bool, of all processes."""
        keys, counts = gathered(keys), gathered(counts)
        size = self.queue.shape[1]
        at = (self.pointer[region] + torch.arange(len(keys), device=keys.device)) % size
        self.queue[region, at], self.counts[region, at] = keys.to(self.queue), counts
        self.pointer[region] = (self.pointer[region] + len(keys)) % size


class Mocov2:
    """InfoNCE of the query of view 1 and the key of view 2 (He et al., equation 1), one direction."""

    online_views: tuple[int, ...] = (0,)
    target_views: tuple[int, ...] = (1,)

    def __init__(self, config: PretrainConfig) -> None:
        self.backbone = resnet.build(**config.network())
        projector = MoCoProjectionHead(
            resnet.FEATURES[config.backbone], config.projector_hidden, config.projector_out
        )  # Linear, ReLU, Linear: no batch norm
        regions = len(REGIONS) if config.method == "harl" else 1
        self.networks = Queued(
            self.backbone, projector, size=config.queue_size, dim=config.projector_out, regions=regions
        )
        self.config = config
        self.pending: list[tuple[int, Tensor, Tensor]] = []

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """View 1 through the query network, view 2 through the key network."""
        return [resnet.dense_features(self.backbone, views[0])], [self._key_features(views[1])]

    @torch.no_grad()
    def _key_features(self, x: Tensor) -> Tensor:
        """Where each process has batch statistics of its own, keys are computed among other pictures than queries.

        Section 3.3, "Shuffling BN"; synchronised statistics leave nothing to shuffle.
        """
        if self.config.sync_bn or distributed.world_size() == 1:
            return resnet.dense_features(self.networks.target_backbone, x)
        x, order = batch_shuffle(x, distributed=True)
        h: Tensor = batch_unshuffle(resnet.dense_features(self.networks.target_backbone, x), order, distributed=True)
        return h

    def distance(self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: int) -> tuple[Tensor, Tensor]:
        """InfoNCE against the region's queue; the keys join it after the optimiser's step."""
        net = self.networks
        q = net.projector(v[0])
        with torch.no_grad():
            k = nn.functional.normalize(net.target_projector(u[0]).float(), dim=-1)
        counts = torch.ones(len(k), dtype=torch.bool, device=k.device) if valid is None else valid
        self.pending.append((region, k, counts))
        loss = info_nce(q, k, net.queue[region], net.counts[region], self.config.temperature, valid)
        return loss, k

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """One view through each network."""
        return whole_picture_step(self, batch, k, K)

    def values(self, k: int, K: int) -> dict[str, float]:
        """The key network's momentum."""
        return {"tau": momentum(self.config, k, K)}

    def after_step(self, k: int, K: int) -> None:
        """Move the key network and the queue.

        The authors move the key network before the next step's keys, which is the same.
        """
        tau = momentum(self.config, k, K)
        follow(self.networks.backbone, self.networks.target_backbone, tau)
        follow(self.networks.projector, self.networks.target_projector, tau)
        for region, keys, counts in self.pending:
            self.networks.enqueue(region, keys, counts)
        self.pending.clear()

    def trained(self) -> list[nn.Module]:
        """The query network."""
        return [self.networks.backbone, self.networks.projector]

    @property
    def module(self) -> nn.Module:
        """Both networks and the queue."""
        return self.networks
