"""MoCo v2 (Chen et al. 2020; He et al. 2020): find the other view's key in a queue of keys."""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from harl_bench.nn import distributed, resnet
from pretrain import parallel
from pretrain.config import PretrainConfig
from pretrain.losses import gathered, info_nce
from pretrain.methods.method import REGIONS, Siamese
from pretrain.networks import Head, follow, target_of
from pretrain.schedules import scheduled


class Config(PretrainConfig):
    """MoCo's keys."""

    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    temperature: float = Field(default=0.1, gt=0, description="of the contrastive loss")
    queue_size: int = Field(default=65536, gt=0, description="keys that are remembered")
    bn_groups: int = Field(
        default=1,
        gt=0,
        description="groups of a batch with batch norm of their own, in all; 1: one a process",
    )
    tau_base: float = Field(
        default=0.996, ge=0, le=1, description="start of the EMA's momentum; rises to 1"
    )
    tau_schedule: Literal["cosine", "fixed"] = "cosine"

    def bn_groups_of(self, processes: int, parts: int) -> int:
        """Return this process's groups in a part of a batch, 0 if they cannot be divided so, or if
        a part would have one group, and keys nowhere to go.
        """
        if self.bn_groups == 1:
            return 1
        whole = self.bn_groups % (parts * processes) == 0 and self.bn_groups > parts
        return self.bn_groups // (parts * processes) if whole else 0

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if self.queue_size < self.batch_size:  # keys of one step would overwrite each other
            raise ValueError(
                f"queue_size ({self.queue_size}) must be batch_size ({self.batch_size}) or more"
            )
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.bn_groups == 1:
            return self
        if self.sync_bn:
            raise ValueError(
                f"bn_groups={self.bn_groups} needs sync_bn=false, which has no statistics over all "
                "processes; or bn_groups=1"
            )
        if self.batch_size % self.bn_groups or self.batch_size // self.bn_groups < 2:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of bn_groups "
                f"({self.bn_groups}), with 2 images or more for each"
            )
        return self


class Mocov2(Siamese):
    """InfoNCE of the query of view 1 and the key of view 2 (He et al., equation 1), one direction.

    The queue starts with random directions, as the authors' does. There is one for each region that
    is compared.
    """

    configs = {"": Config}
    online_views, target_views = (0,), (1,)
    queue: Tensor
    counts: Tensor
    pointer: Tensor

    def __init__(self, config: Config, regions: Sequence[str] = REGIONS[:1]) -> None:
        super().__init__()
        features = resnet.FEATURES[config.backbone]
        hidden, out = config.projector_hidden, config.projector_out
        self.groups = parallel.bn_groups(config, distributed.world_size())
        self.backbone = resnet.build(**config.network(), bn_groups=self.groups)
        # No batch norm.
        self.projector = Head(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.target_backbone = target_of(self.backbone)
        self.target_projector = target_of(self.projector)
        n, size = len(regions), config.queue_size
        self.register_buffer("queue", nn.functional.normalize(torch.randn(n, size, out), dim=-1))
        # Keys of empty regions do not count.
        self.register_buffer("counts", torch.ones(n, size, dtype=torch.bool))
        self.register_buffer("pointer", torch.zeros(n, dtype=torch.int64))
        self.config, self.dim = config, out
        # Keys that join the queue after the step.
        self.pending: list[tuple[int, Tensor, Tensor]] = []

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the map of view 1 through the query network, of view 2 through the key network."""
        return [resnet.dense_features(self.backbone, views[0])], [self.key_features(views[1])]

    @torch.no_grad()
    def key_features(self, x: Tensor) -> Tensor:
        """Return key maps; where each process, or each group of a batch, has its own batch
        statistics, of images shuffled over all of them.

        Section 3.3, "Shuffling BN". Statistics of the whole batch leave nothing to shuffle. The
        order is drawn from torch's generator, which the run's seed starts and last.pth keeps.
        """
        world, own = distributed.world_size(), distributed.rank()
        if self.config.sync_bn or world * self.groups == 1:
            return resnet.dense_features(self.target_backbone, x)
        order = torch.randperm(len(x) * world, device=x.device)
        if world > 1:
            torch.distributed.broadcast(order, src=0)
        h = resnet.dense_features(self.target_backbone, gathered(x)[order.view(-1, len(x))[own]])
        return gathered(h)[order.argsort().view(-1, len(x))[own]]

    def compare(
        self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: str
    ) -> tuple[Tensor, Tensor]:
        """Return InfoNCE against the region's queue, and the keys."""
        r = REGIONS.index(region)
        q = self.projector(v[0])
        with torch.no_grad():
            k = nn.functional.normalize(self.target_projector(u[0]).float(), dim=-1)
        return info_nce(q, k, self.queue[r], self.counts[r], self.config.temperature, valid), k

    def keep(self, region: str, z: Tensor, valid: Tensor | None) -> None:
        """Let the keys join the region's queue after the optimiser's step."""
        counts = torch.ones(len(z), dtype=torch.bool, device=z.device) if valid is None else valid
        self.pending.append((REGIONS.index(region), z, counts))

    def log_values(self, k: int, K: int) -> dict[str, float]:
        """Return the key network's momentum."""
        return {"tau": scheduled(self.config.tau_base, self.config.tau_schedule, k, K)}

    def after_step(self, k: int, K: int) -> None:
        """Move the key network and the queue.

        The authors move it before the next step's keys, which is the same.
        """
        tau = scheduled(self.config.tau_base, self.config.tau_schedule, k, K)
        follow(self.backbone, self.target_backbone, tau)
        follow(self.projector, self.target_projector, tau)
        for region, keys, counts in self.pending:
            self.enqueue(region, keys, counts)
        self.pending.clear()

    @torch.no_grad()
    def enqueue(self, region: int, keys: Tensor, counts: Tensor) -> None:
        """Replace the oldest keys by normalized [B, D] ones of all processes; counts [B] bool."""
        keys, counts = gathered(keys), gathered(counts)
        size = self.queue.shape[1]
        slots = (self.pointer[region] + torch.arange(len(keys), device=keys.device)) % size
        self.queue[region, slots], self.counts[region, slots] = keys.to(self.queue), counts
        self.pointer[region] = (self.pointer[region] + len(keys)) % size
