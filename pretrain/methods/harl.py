"""HARL (Tran et al., Sensors 2022, 22, 5169): a siamese method that also compares the foregrounds and the backgrounds.

The masks are laid on the last feature map; the whole picture, its foreground and its background are pooled to three
vectors, and the same heads serve all three (section 3.2). The paper builds on BYOL and claims contrastive methods too:
`base=simclr`, `base=mocov2` and `base=simsiam` put their own loss in the place of D.
"""

from collections.abc import Callable

from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor

from harl_bench.core.lookup import lookup
from pretrain.config import PretrainConfig
from pretrain.losses import downsample_mask, hybrid_loss, mask_loss, masked_pool
from pretrain.methods.byol import Byol
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.mocov2 import Mocov2
from pretrain.methods.siamese import REGIONS, OnBase, Siamese
from pretrain.methods.simclr import Simclr
from pretrain.methods.simsiam import Simsiam
from pretrain.schedules import scheduled

BASES: dict[str, Callable[[PretrainConfig], Siamese]] = {
    "byol": Byol,
    "simclr": Simclr,
    "mocov2": Mocov2,
    "simsiam": Simsiam,
}
# The regions each variant compares (the five losses of the official code). Regions left out are not computed.
VARIANTS = {"byol": (0,), "fg": (1,), "fg+bg": (1, 2), "byol+fg": (0, 1), "byol+fg+bg": (0, 1, 2)}


class Harl(OnBase):
    """L_hyb of both directions, summed (equations 1 to 4)."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(lookup(BASES, config.base, "base")(config), config)
        self.regions = VARIANTS[config.loss]

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Each view through its networks, each region through the heads."""
        c, base = self.config, self.base
        alpha = scheduled(c.alpha_base, c.alpha_schedule, k, K, c)
        lambda_ = scheduled(c.lambda_base, c.lambda_schedule, k, K, c)

        online, target = base.features(batch.views)
        grid = (online[0].shape[2], online[0].shape[3])
        M_f = [downsample_mask(m, grid, c.mask_rule) for m in batch.masks]
        v = [self._regions(h, M_f[i]) for h, i in zip(online, base.online_views, strict=True)]
        u = [self._regions(h, M_f[i]) for h, i in zip(target, base.target_views, strict=True)]
        # A region counts for a sample only if both views show it, and only where there is a mask.
        masks = {1: M_f, 2: [1 - M for M in M_f]}
        valid = {r: _there(M) & _there(M_) & batch.has_mask for r, (M, M_) in masks.items()}
        D, z = {}, {}
        for r in self.regions:
            D[r], z[r] = base.distance([x[r] for x in v], [x[r] for x in u], valid.get(r), r)

        logs: dict[str, float | Tensor] = {f"loss_{REGIONS[r]}": D_r.detach() for r, D_r in D.items()}
        logs |= {f"valid_{REGIONS[r]}": there.float().mean() for r, there in valid.items()}
        logs |= {"alpha": alpha, "lambda": lambda_, **base.values(k, K)}
        return StepOutput(
            _combined(D, alpha, lambda_), {**logs, "feature_std": std_of_l2_normalized(z[self.regions[0]])}
        )

    def _regions(self, h: Tensor, M_f: Tensor) -> dict[int, Tensor]:
        """[B, C] of the whole picture, and of the foreground and background where the loss compares them."""
        v_w = h.float().mean(dim=(2, 3))
        regions = {0: v_w}
        for r, M in ((1, M_f), (2, 1 - M_f)):
            if r in self.regions:
                v = masked_pool(h, M, self.config.mask_pooling)
                # Rows without the region are left out of the loss; v_w stands in: no zeros enter BN statistics.
                regions[r] = v.where(_there(M)[:, None], v_w)
        return regions


def _there(M: Tensor) -> Tensor:
    """[B] bool: the region has a cell."""
    return M.sum(dim=(1, 2, 3)) >= 1


def _combined(D: dict[int, Tensor], alpha: float, lambda_: float) -> Tensor:
    """The loss of the regions that take part: equation (1), (4), or what is left of them without one."""
    mask = mask_loss(D[1], D[2], alpha) if 2 in D else D.get(1)
    if mask is None:
        return D[0]
    return hybrid_loss(D[0], mask, lambda_) if 0 in D else mask
