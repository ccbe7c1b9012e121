"""Masking improves contrastive learning for ConvNets, and saliency tells you where (Chin et al.,
WACV 2024).

The query loses some cells of a grid, as large a share of the foreground as of the background; the
key loses none; a copy of the key that lost much of its foreground is a hard negative of its own
query. On MoCo v2 as in the authors' code (e57d58e), on SimCLR, and on BYOL and SimSiam, which have
no negatives.

Letters: B batch; q, k, t projections of query, key and hard negative; p prediction, z target.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from harl_bench.nn import distributed, resnet
from harl_bench.nn.blur import high_pass
from pretrain.batch import Batch
from pretrain.config import MaskedConfig, PretrainConfig
from pretrain.data import Cells
from pretrain.losses import FAR, downsample_mask, feature_std, info_nce_each, nt_xent, regression
from pretrain.methods import byol, method_class, mocov2, simclr, simsiam
from pretrain.methods.byol import Byol
from pretrain.methods.method import UNSEEN, Siamese, StepOutput, Wrapper, global_pool
from pretrain.methods.mocov2 import Mocov2
from pretrain.methods.simclr import Simclr
from pretrain.methods.simsiam import Simsiam
from pretrain.saliency import localizer, masking

MASKS = 2  # stream of the seed, beside data.ORDER and data.VIEWS
Losses = tuple[Tensor, Tensor]  # the loss, and projections [B, D] for the monitor of collapse


class Config(MaskedConfig):
    """Keys of masked queries, beside their base's."""

    base: Literal["byol", "simclr", "mocov2", "simsiam"] = "byol"
    mask_fill: Literal["high_pass", "blur", "mean"] = "high_pass"
    mask_grid: int = Field(default=7, gt=0, description="cells on a side")
    mask_ratio: tuple[float, float] = Field(
        default=(0.05, 0.25), description="fraction of cells masked, drawn evenly"
    )
    hard_negative_ratio: tuple[float, float] = Field(
        default=(0.4, 0.7), description="the same, of the foreground"
    )
    hard_negative_weight: float | None = Field(
        default=None, ge=0, description="alpha; None: 2 on contrastive bases, 0 on the others"
    )
    hard_negative_margin: float = Field(
        default=0.0, ge=-1, le=1, description="of the repulsion on byol and simsiam"
    )
    localiser: str = Field(
        default="masks", description="--masks, or a checkpoint whose activations find the object"
    )

    @property
    def needs_masks(self) -> bool:
        """Whether this run trains with --masks."""
        return self.localiser == "masks"

    @property
    def high_passed(self) -> bool:
        """Whether the network sees high-pass filtered images."""
        return self.mask_fill == "high_pass"

    def repulsion(self) -> float:
        """Return alpha, the hard negatives' weight: 2 on contrastive bases, 0 on the others."""
        default = 2.0 if self.base in ("mocov2", "simclr") else 0.0  # the authors' alpha
        return default if self.hard_negative_weight is None else self.hard_negative_weight

    def identity(self) -> dict[str, object]:
        """Return the digest of the checkpoint that locates objects, if any."""
        return localizer.identity(self.localiser)

    def unused(self) -> dict[str, str]:
        """Return the keys of hard negatives that are not made."""
        unused = super().unused()
        if not self.repulsion():
            unused["hard_negative_ratio"] = "saliency_mask with a hard_negative_weight"
        if not self.repulsion() or self.base not in ("byol", "simsiam"):
            unused["hard_negative_margin"] = (
                "saliency_mask on byol and simsiam with a hard_negative_weight"
            )
        return unused

    @field_validator("mask_ratio", "hard_negative_ratio")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("a range [low, high] within 0 and 1")
        return value


class OnByol(Config, byol.Config):
    base: Literal["byol"] = "byol"


class OnSimclr(Config, simclr.Config):
    base: Literal["simclr"] = "simclr"


class OnMocov2(Config, mocov2.Config):
    base: Literal["mocov2"] = "mocov2"


class OnSimsiam(Config, simsiam.Config):
    base: Literal["simsiam"] = "simsiam"


class SaliencyMask(Wrapper):
    """The base's loss with masked queries and, on contrastive bases, one hard negative for each."""

    configs = {"byol": OnByol, "simclr": OnSimclr, "mocov2": OnMocov2, "simsiam": OnSimsiam}
    traced = ("loss",)

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.base)
        self.config = config
        self.localize = localizer.build(config.localiser, config.mask_grid)
        self.alpha = config.repulsion()
        self.loss: Callable[..., Losses] = getattr(self, f"_{config.base}")
        self.calls = (-1, 0)

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return the base's, and one for hard negatives that have gradients."""
        assert isinstance(config, Config), "the configuration of this method"
        base: Siamese = method_class(config.base)
        return base.passes(config) + (config.base == "simclr" and config.repulsion() > 0)

    @classmethod
    def cells(cls, config: PretrainConfig) -> Cells:
        """Return how a mask becomes cells of the localizer's grid."""
        assert isinstance(config, Config), "the configuration of this method"
        if not config.needs_masks:
            return UNSEEN
        return partial(downsample_mask, S=(config.mask_grid, config.mask_grid))

    def forward(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Localize on unmasked views, filter, mask, compare."""
        generator = self._generator(k, batch.views.device)
        foreground = [self.localize(x, m) for x, m in zip(batch.views, batch.masks, strict=True)]
        views = [high_pass(x) if self.config.high_passed else x for x in batch.views]
        both = self.config.base in ("byol", "simsiam")  # whose views are queries and keys in turn
        masked = [
            self._query(x, f, generator)
            for x, f in zip(views[: 1 + both], foreground, strict=False)
        ]
        t, salient = None, foreground[1].any(dim=(1, 2))
        if self.alpha:
            t, hidden = self._negative(views[1], foreground[1], generator)
            salient &= hidden
        loss, z = self.loss(masked, views, t, salient)
        self.base.keep("whole", z, None)
        logs = {"foreground": foreground[0].float().mean(), "feature_std": feature_std(z)}
        return StepOutput(loss, {**self.base.log_values(k, K), **logs})

    def _generator(self, k: int, device: torch.device) -> torch.Generator:
        """Decided by seed, step, process and part of the batch: a resumed run draws the same."""
        self.calls = (k, self.calls[1] + 1 if self.calls[0] == k else 0)
        seed = np.random.SeedSequence((self.config.seed, MASKS, *self.calls, distributed.rank()))
        return torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))

    def _query(self, x: Tensor, foreground: Tensor, generator: torch.Generator) -> Tensor:
        r = _uniform(len(x), self.config.mask_ratio, generator)
        where = masking.query_pixels(
            foreground, r, (x.shape[2], x.shape[3]), self.config.mask_fill, generator
        )
        return self._filled(x, where, masking.QUERY_NOISE, generator)

    def _negative(
        self, x: Tensor, foreground: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return hard negatives, and [B] bool: some of the image is hidden.

        Of a foreground of one cell the ratio may round to none.
        """
        r = _uniform(len(x), self.config.hard_negative_ratio, generator)
        where = masking.negative_pixels(
            foreground, r, (x.shape[2], x.shape[3]), self.config.mask_fill, generator
        )
        hidden = where.flatten(1).any(dim=1)
        return self._filled(x, where, masking.NEGATIVE_NOISE, generator), hidden

    def _filled(self, x: Tensor, where: Tensor, std: float, generator: torch.Generator) -> Tensor:
        if self.config.high_passed:
            return masking.fill_noise(x, where, std, generator)
        return masking.FILLS[self.config.mask_fill](x, where)

    def _own(self, q: Tensor, t: Tensor | None, salient: Tensor) -> Tensor | None:
        """alpha q.t [B], FAR where no foreground was hidden: t would be the key."""
        if t is None:
            return None
        cosine = nn.functional.cosine_similarity(q.float(), t.float(), dim=-1)
        return torch.where(salient, self.alpha * cosine, FAR)

    def _mocov2(
        self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor
    ) -> Losses:
        """InfoNCE over [q.k, q.queue, alpha q.t] / T; t passes the key network, not the queue."""
        net = self.base
        assert isinstance(net, Mocov2), "the base of the configuration"
        online, (key_map,) = net.features(torch.stack([masked[0], views[1]]))
        q = net.projector(global_pool(online[0]))
        with torch.no_grad():
            k = nn.functional.normalize(net.target_projector(global_pool(key_map)).float(), dim=-1)
            hard = None if t is None else net.target_projector(global_pool(net.key_features(t)))
        own = self._own(q, hard, salient)
        temperature = net.config.temperature
        return info_nce_each(q, k, net.queue[0], net.counts[0], temperature, own).mean(), k

    def _simclr(
        self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor
    ) -> Losses:
        """NT-Xent; t joins its own anchor's negatives, with gradient as all negatives here."""
        net = self.base
        assert isinstance(net, Simclr), "the base of the configuration"
        project = net.projector
        online, _ = net.features(torch.stack([masked[0], views[1]]))
        z_1, z_2 = (project(global_pool(h)) for h in online)
        hard = None if t is None else project(global_pool(resnet.dense_features(self.backbone, t)))
        own = self._own(z_1, hard, salient)
        return nt_xent(z_1, z_2, net.temperature, own=own), z_1.detach()

    def _byol(
        self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor
    ) -> Losses:
        """D of both directions, the online view masked, the target's not."""
        net = self.base
        assert isinstance(net, Byol), "the base of the configuration"
        p = [
            net.predictor(net.projector(global_pool(resnet.dense_features(net.backbone, x))))
            for x in masked
        ]
        with torch.no_grad():
            clean = [*views, *([] if t is None else [t])]
            maps = [resnet.dense_features(net.target_backbone, x) for x in clean]
            z = [net.target_projector(global_pool(h)) for h in maps]
        loss = regression(p[0], z[1]).mean() + regression(p[1], z[0]).mean()
        return loss + self._repulsion(p[0], None if t is None else z[2], salient), z[0]

    def _simsiam(
        self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor
    ) -> Losses:
        """Negative cosine of both directions, halved, the predicting view masked, the other not."""
        net = self.base
        assert isinstance(net, Simsiam), "the base of the configuration"
        p = [
            net.predictor(net.projector(global_pool(h)))
            for h in net.features(torch.stack(masked))[0]
        ]
        with torch.no_grad():
            clean = [*views, *([] if t is None else [t])]
            z = [net.projector(global_pool(resnet.dense_features(net.backbone, x))) for x in clean]
        distance = regression(p[0], z[1]).mean() + regression(p[1], z[0]).mean()
        loss = distance / 4 - 1  # regression is 2 - 2 cos
        return loss + self._repulsion(p[0], None if t is None else z[2], salient), z[0]

    def _repulsion(self, p: Tensor, t: Tensor | None, salient: Tensor) -> Tensor:
        """alpha max(0, cos(p, z_t) - margin), our own: the source has no such bases."""
        if t is None:
            return p.new_zeros(())
        cosine = nn.functional.cosine_similarity(p.float(), t.float(), dim=-1)
        excess = (cosine - self.config.hard_negative_margin).clamp(min=0)
        return self.alpha * (excess * salient).mean()


def _uniform(B: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = span
    return low + (high - low) * torch.rand(B, generator=generator, device=generator.device)
