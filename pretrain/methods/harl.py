"""HARL (Tran et al., Sensors 2022, 22, 5169): compare whole images, their foregrounds and their
backgrounds.

    L_hyb  = lambda L_whole + (1 - lambda) L_mask                      (equation 4)
    L_mask = alpha L_foreground + (1 - alpha) L_background             (equation 1)

The masks are laid on the last feature map. The whole image, its foreground and its background are
pooled to three vectors, and the same heads serve all three (section 3.2). The paper builds on BYOL
and claims contrastive methods too: `base=simclr`, `base=mocov2` and `base=simsiam` put their own
loss in the place of D.

Letters: B batch, C channels, S side of the map; h map, M mask on its cells, v and u pooled online
and target vectors.
"""

from functools import partial
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from harl_bench.nn import resnet
from pretrain.batch import Batch
from pretrain.config import MaskedConfig, PretrainConfig
from pretrain.data import Cells
from pretrain.losses import downsample_mask, feature_std, hybrid_loss, mask_loss, masked_pool
from pretrain.methods import byol, method_class, mocov2, simclr, simsiam
from pretrain.methods.method import REGIONS, Siamese, StepOutput, Wrapper, global_pool
from pretrain.schedules import scheduled

# The regions of each value of `loss` (the five losses of the official code). Regions left out are
# not computed.
VARIANTS = {
    "whole": ("whole",),
    "fg": ("foreground",),
    "fg+bg": ("foreground", "background"),
    "whole+fg": ("whole", "foreground"),
    "whole+fg+bg": REGIONS,
}


class Config(MaskedConfig):
    """HARL's keys, beside its base's."""

    base: Literal["byol", "simclr", "mocov2", "simsiam"] = Field(
        default="byol", description="what HARL sits on"
    )
    loss: Literal["whole", "fg", "fg+bg", "whole+fg", "whole+fg+bg"] = Field(
        default="whole+fg+bg", description="the regions that are compared"
    )
    alpha_base: float = Field(
        default=0.7, ge=0, le=1, description="weight of the foreground within the mask loss"
    )
    lambda_base: float = Field(
        default=0.7, ge=0, le=1, description="weight of the whole image in the hybrid loss"
    )
    alpha_schedule: Literal["cosine", "fixed"] = "cosine"
    lambda_schedule: Literal["cosine", "falling", "fixed"] = "cosine"
    schedule_tick: Literal["step", "epoch"] = "step"
    mask_pooling: Literal["mean", "area_plus_one", "gap"] = "mean"
    mask_rule: Literal["area", "nearest", "any"] = "area"

    @field_validator("loss", mode="before")
    @classmethod
    def _old_name(cls, value: Any) -> Any:
        """Take `byol+fg+bg` for `whole+fg+bg`, its name in earlier versions."""
        return value.replace("byol", "whole") if isinstance(value, str) else value

    def unused(self) -> dict[str, str]:
        """Return the keys of terms that the loss does not have."""
        unused = super().unused()
        if "fg+bg" not in self.loss:
            unused |= dict.fromkeys(("alpha_base", "alpha_schedule"), "harl with fg+bg in its loss")
        if "whole+" not in self.loss:
            unused |= dict.fromkeys(
                ("lambda_base", "lambda_schedule"), "harl with whole+ in its loss"
            )
        if "+" not in self.loss:
            unused["schedule_tick"] = "harl with two terms in its loss"
        if "fg" not in self.loss:
            unused |= dict.fromkeys(("mask_pooling", "mask_rule"), "harl with fg in its loss")
        return unused


class OnByol(Config, byol.Config):
    base: Literal["byol"] = "byol"


class OnSimclr(Config, simclr.Config):
    base: Literal["simclr"] = "simclr"


class OnMocov2(Config, mocov2.Config):
    base: Literal["mocov2"] = "mocov2"


class OnSimsiam(Config, simsiam.Config):
    base: Literal["simsiam"] = "simsiam"


class Harl(Wrapper):
    """L_hyb of both directions, summed (equations 1 to 4)."""

    configs = {"byol": OnByol, "simclr": OnSimclr, "mocov2": OnMocov2, "simsiam": OnSimsiam}
    traced = ("losses",)

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.base, regions=REGIONS)
        self.config, self.regions = config, VARIANTS[config.loss]

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return the base's."""
        assert isinstance(config, Config), "the configuration of this method"
        base: Siamese = method_class(config.base)
        return base.passes(config)

    @classmethod
    def cells(cls, config: PretrainConfig) -> Cells:
        """Return how a mask becomes cells of the last feature map."""
        assert isinstance(config, Config), "the configuration of this method"
        S = resnet.side(config.feature_grid, config.image_size)
        return partial(downsample_mask, S=(S, S), rule=config.mask_rule)

    def forward(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Weigh the regions' losses by the step's alpha and lambda."""
        D, z, valid, spread = self.losses(batch.views, batch.masks, batch.has_mask)
        for region in self.regions:
            self.base.keep(region, z[region], valid.get(region))
        alpha, lambda_ = self.weights(k, K)
        logs: dict[str, float | Tensor] = {
            f"loss_{region}": loss.detach() for region, loss in D.items()
        }
        logs |= {f"valid_{region}": samples.float().mean() for region, samples in valid.items()}
        logs |= {"alpha": alpha, "lambda": lambda_, **self.base.log_values(k, K)}
        logs["feature_std"] = spread
        return StepOutput(combined(D, alpha, lambda_), logs)

    def losses(
        self, views: Tensor, masks: Tensor, has_mask: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Send each view through its networks and each region through the heads.

        Returns:
            For each region its loss, one view's projections [B, D], and the samples that count [B];
            and the spread of the first region's projections.
        """
        base = self.base
        online, target = base.features(views)
        S = (online[0].shape[2], online[0].shape[3])
        foreground = [downsample_mask(m, S, self.config.mask_rule) for m in masks]
        v = [self.pooled(h, foreground[i]) for h, i in zip(online, base.online_views, strict=True)]
        u = [self.pooled(h, foreground[i]) for h, i in zip(target, base.target_views, strict=True)]
        # A region counts for a sample only if both views show it, and only where there is a mask.
        cells = {"foreground": foreground, "background": [1 - M for M in foreground]}
        valid = {region: present(M) & present(M_) & has_mask for region, (M, M_) in cells.items()}
        D, z = {}, {}
        for region in self.regions:
            D[region], z[region] = base.compare(
                [x[region] for x in v], [x[region] for x in u], valid.get(region), region
            )
        return D, z, valid, feature_std(z[self.regions[0]])

    def weights(self, k: int, K: int) -> tuple[float, float]:
        """Return alpha and lambda, which rise every step or only with each epoch."""
        c = self.config
        if c.schedule_tick == "epoch":
            k, K = k * c.epochs // K, c.epochs
        alpha = scheduled(c.alpha_base, c.alpha_schedule, k, K)
        return alpha, scheduled(c.lambda_base, c.lambda_schedule, k, K)

    def pooled(self, h: Tensor, M_f: Tensor) -> dict[str, Tensor]:
        """Return [B, C] of the whole image, and of the regions that the loss compares."""
        vectors = {"whole": global_pool(h)}
        for region, M in (("foreground", M_f), ("background", 1 - M_f)):
            if region in self.regions:
                v = masked_pool(h, M, self.config.mask_pooling)
                # Rows without the region are left out of the loss. The whole stands in: no zeros
                # enter BN statistics.
                vectors[region] = v.where(present(M)[:, None], vectors["whole"])
        return vectors


def present(M: Tensor) -> Tensor:
    """Return [B] bool: the region has a cell."""
    return M.sum(dim=(1, 2, 3)) >= 1


def combined(D: dict[str, Tensor], alpha: float, lambda_: float) -> Tensor:
    """Return the loss of the regions that take part: equation (4), or what is left of it."""
    if "background" in D:
        L_mask = mask_loss(D["foreground"], D["background"], alpha)
    elif "foreground" in D:
        L_mask = D["foreground"]
    else:
        return D["whole"]
    return hybrid_loss(D["whole"], L_mask, lambda_) if "whole" in D else L_mask
