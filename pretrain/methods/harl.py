"""HARL (Tran et al., Sensors 2022, 22, 5169): BYOL that also predicts the foreground's and the background's features.

The masks are laid on the last feature map; the whole picture, its foreground and its background are pooled to three
vectors, and the same projector g and predictor q serve all three (section 3.2).
"""

from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.ema import OnlineTarget
from pretrain.losses import downsample_mask, hybrid_loss, mask_loss, masked_pool, mean_over_valid, regression
from pretrain.methods.method import Batch, StepOutput
from pretrain.schedules import rising

REGIONS = ("whole", "foreground", "background")


class Harl:
    """L_hyb of both directions, summed (equations 1 to 4)."""

    def __init__(self, config: PretrainConfig) -> None:
        self.backbone = resnet.build(config.backbone, feature_grid=config.feature_grid)
        self.networks = OnlineTarget(
            self.backbone, features=resnet.FEATURES[config.backbone], hidden=config.projector_hidden,
            out=config.projector_out, predictor_hidden=config.predictor_hidden,
        )  # fmt: skip
        self.config = config

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Each view through both networks, each region through both heads."""
        c, net = self.config, self.networks
        alpha = rising(c.alpha_base, k, K) if c.alpha_schedule == "cosine" else c.alpha_base
        lambda_ = rising(c.lambda_base, k, K) if c.lambda_schedule == "cosine" else c.lambda_base

        online = [self._regions(net.online_features(x), m) for x, m in zip(batch.views, batch.masks, strict=True)]
        target = [self._regions(net.target_features(x), m) for x, m in zip(batch.views, batch.masks, strict=True)]
        # One call per region, so that batch-norm statistics are per region too (official code, docs/fidelity.md 1.1).
        p = [[net.predict(v) for v, _ in view] for view in online]
        z = [[net.target_project(v) for v, _ in view] for view in target]
        # A region counts for a sample only if both views show it.
        valid = [n_1 & n_2 for (_, n_1), (_, n_2) in zip(*online, strict=True)]
        valid[1], valid[2] = valid[1] & batch.has_mask, valid[2] & batch.has_mask

        D = [
            mean_over_valid(regression(p[0][r], z[1][r]), valid[r])
            + mean_over_valid(regression(p[1][r], z[0][r]), valid[r])
            for r in range(len(REGIONS))
        ]
        loss = hybrid_loss(D[0], mask_loss(D[1], D[2], alpha), lambda_)
        logs = {f"loss_{name}": float(D_r.detach()) for name, D_r in zip(REGIONS, D, strict=True)}
        shares = {f"valid_{name}": float(valid[r].float().mean()) for r, name in enumerate(REGIONS) if r}
        std = float(std_of_l2_normalized(z[0][0]))
        return StepOutput(loss, {**logs, **shares, "alpha": alpha, "lambda": lambda_, "feature_std": std})

    def _regions(self, h: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(v [B, C], not empty [B]) of the whole picture, the foreground and the background."""
        M_f = downsample_mask(mask, (h.shape[2], h.shape[3]), self.config.mask_rule)
        v_w = h.float().mean(dim=(2, 3))
        regions = [(v_w, M_f.new_ones(len(h)).bool())]
        for M in (M_f, 1 - M_f):
            there = M.sum(dim=(1, 2, 3)) >= 1
            v = masked_pool(h, M, self.config.mask_pooling)
            # Rows without the region are left out of the loss; v_w stands in so that zeros do not enter BN statistics.
            regions.append((v.where(there[:, None], v_w), there))
        return regions

    def after_step(self, k: int, K: int) -> None:
        """Move the target, equation (3)."""
        self.networks.update_target(rising(self.config.tau_base, k, K))

    def trained(self) -> list[nn.Module]:
        """theta."""
        return [self.networks.backbone, self.networks.projector, self.networks.predictor]

    @property
    def module(self) -> nn.Module:
        """theta and xi."""
        return self.networks
