"""Masking improves contrastive learning for ConvNets, and saliency tells you where (Chin et al., WACV 2024).

The query loses some cells of a grid, as large a share of the foreground as of the background; the key loses none; a
copy of the key that lost much of its foreground is a hard negative of its own query. On MoCo v2 as in the authors'
code (e57d58e), on SimCLR, and on BYOL and SimSiam, which have no negatives.

Letters: B batch; q, k, t projections of query, key and hard negative; p prediction, z target.
"""

from collections.abc import Callable

import numpy as np
import torch
from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor, nn

from harl_bench.core.lookup import lookup
from harl_bench.nn import distributed, resnet
from harl_bench.nn.blur import high_pass
from pretrain import localiser, masking
from pretrain.config import PretrainConfig
from pretrain.losses import FAR, info_nce_each, nt_xent, regression
from pretrain.methods.harl import BASES
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.siamese import OnBase

MASKS = 2  # stream of the seed, beside data.ORDER and data.VIEWS
Losses = tuple[Tensor, Tensor]  # the loss, and projections [B, D] for the monitor of collapse


class SaliencyMask(OnBase):
    """The base's loss with masked queries and, on contrastive bases, one hard negative for each."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(lookup(BASES, config.base, "base")(config), config)
        self.localise = localiser.build(config.localiser, config.mask_grid)
        self.alpha = config.repulsion()
        self.loss: Callable[..., Losses] = getattr(self, f"_{config.base}")
        self.calls = (-1, 0)

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Localise on unmasked views, filter, mask, compare."""
        generator = self._generator(k, batch.views.device)
        foreground = [self.localise(x, m) for x, m in zip(batch.views, batch.masks, strict=True)]
        views = [high_pass(x) if self.config.mask_fill == "high_pass" else x for x in batch.views]
        both = self.config.base in ("byol", "simsiam")  # whose views are queries and keys in turn
        masked = [self._query(x, f, generator) for x, f in zip(views[: 1 + both], foreground, strict=False)]
        t = self._negative(views[1], foreground[1], generator) if self.alpha else None
        loss, z = self.loss(masked, views, t, foreground[1].any(dim=(1, 2)))
        logs = {"foreground": foreground[0].float().mean(), "feature_std": std_of_l2_normalized(z)}
        return StepOutput(loss, {**self.base.values(k, K), **logs})

    def _generator(self, k: int, device: torch.device) -> torch.Generator:
        """Decided by the seed, the step, the process and the part of the batch: a resumed run draws the same."""
        self.calls = (k, self.calls[1] + 1 if self.calls[0] == k else 0)
        seed = np.random.SeedSequence((self.config.seed, MASKS, *self.calls, distributed.rank()))
        return torch.Generator(device).manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))

    def _query(self, x: Tensor, foreground: Tensor, generator: torch.Generator) -> Tensor:
        r = _uniform(len(x), self.config.mask_ratio, generator)
        where = masking.query_pixels(foreground, r, (x.shape[2], x.shape[3]), self.config.mask_fill, generator)
        return self._filled(x, where, masking.QUERY_NOISE, generator)

    def _negative(self, x: Tensor, foreground: Tensor, generator: torch.Generator) -> Tensor:
        r = _uniform(len(x), self.config.hard_negative_ratio, generator)
        where = masking.negative_pixels(foreground, r, (x.shape[2], x.shape[3]), self.config.mask_fill, generator)
        return self._filled(x, where, masking.NEGATIVE_NOISE, generator)

    def _filled(self, x: Tensor, where: Tensor, std: float, generator: torch.Generator) -> Tensor:
        if self.config.mask_fill == "high_pass":
            return masking.fill_noise(x, where, std, generator)
        return masking.FILLS[self.config.mask_fill](x, where)

    def _own(self, q: Tensor, t: Tensor | None, salient: Tensor) -> Tensor | None:
        """alpha q.t [B], FAR where there was no foreground to hide: t would be the key."""
        if t is None:
            return None
        cosine = nn.functional.cosine_similarity(q.float(), t.float(), dim=-1)
        return torch.where(salient, self.alpha * cosine, FAR)

    def _mocov2(self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor) -> Losses:
        """InfoNCE over [q.k, q.queue, alpha q.t] / T; t through the key network, never into the queue."""
        net = self.base.networks  # type: ignore[attr-defined]
        online, (key_map,) = self.base.features(torch.stack([masked[0], views[1]]))
        q = net.projector(_pooled(online[0]))
        with torch.no_grad():
            k = nn.functional.normalize(net.target_projector(_pooled(key_map)).float(), dim=-1)
            hard = None if t is None else net.target_projector(_pooled(self.base._key_features(t)))  # type: ignore[attr-defined]
        self.base.pending.append((0, k, torch.ones_like(salient)))  # type: ignore[attr-defined]
        own = self._own(q, hard, salient)
        return info_nce_each(q, k, net.queue[0], net.counts[0], self.config.temperature, own).mean(), k

    def _simclr(self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor) -> Losses:
        """NT-Xent; t joins the negatives of its own anchor, with gradient as all negatives have here."""
        project = self.base.projector  # type: ignore[attr-defined]
        online, _ = self.base.features(torch.stack([masked[0], views[1]]))
        z_1, z_2 = (project(_pooled(h)) for h in online)
        hard = None if t is None else project(_pooled(resnet.dense_features(self.backbone, t)))
        own = self._own(z_1, hard, salient)
        return nt_xent(z_1, z_2, self.config.temperature, own=own), z_1.detach()

    def _byol(self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor) -> Losses:
        """D of both directions, the online view masked, the target's not."""
        net = self.base.networks  # type: ignore[attr-defined]
        p = [net.predict(_pooled(net.online_features(x))) for x in masked]
        z = [net.target_project(_pooled(net.target_features(x))) for x in views]
        hard = None if t is None else net.target_project(_pooled(net.target_features(t)))
        loss = regression(p[0], z[1]).mean() + regression(p[1], z[0]).mean()
        return loss + self._repulsion(p[0], hard, salient), z[0]

    def _simsiam(self, masked: list[Tensor], views: list[Tensor], t: Tensor | None, salient: Tensor) -> Losses:
        """Negative cosine of both directions, halved, the predicting view masked, the other not."""
        base = self.base
        p = [base.predictor(base.projector(_pooled(h))) for h in base.features(torch.stack(masked))[0]]  # type: ignore[attr-defined]
        with torch.no_grad():
            clean = [*views, *([] if t is None else [t])]
            z = [base.projector(_pooled(resnet.dense_features(self.backbone, x))) for x in clean]  # type: ignore[attr-defined]
        loss = (regression(p[0], z[1]).mean() + regression(p[1], z[0]).mean()) / 4 - 1  # regression is 2 - 2 cos
        return loss + self._repulsion(p[0], None if t is None else z[2], salient), z[0]

    def _repulsion(self, p: Tensor, t: Tensor | None, salient: Tensor) -> Tensor:
        """alpha max(0, cos(p, z_t) - margin), our own: the source is silent on bases without negatives."""
        if t is None:
            return p.new_zeros(())
        cosine = nn.functional.cosine_similarity(p.float(), t.float(), dim=-1)
        return self.alpha * ((cosine - self.config.hard_negative_margin).clamp(min=0) * salient).mean()


def _uniform(B: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    return span[0] + (span[1] - span[0]) * torch.rand(B, generator=generator, device=generator.device)


def _pooled(h: Tensor) -> Tensor:
    return h.float().mean(dim=(2, 3))
