"""BYOL (Grill et al. 2020): predict the target network's projection of the other view."""

from lightly.utils.debug import std_of_l2_normalized
from torch import nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.ema import OnlineTarget
from pretrain.losses import regression
from pretrain.methods.method import Batch, StepOutput
from pretrain.schedules import rising


class Byol:
    """L = D(p(x), z(x')) + D(p(x'), z(x)): both directions, not halved."""

    def __init__(self, config: PretrainConfig) -> None:
        self.backbone = resnet.build(config.backbone, feature_grid=config.feature_grid)
        self.networks = OnlineTarget(
            self.backbone, features=resnet.FEATURES[config.backbone], hidden=config.projector_hidden,
            out=config.projector_out, predictor_hidden=config.predictor_hidden,
        )  # fmt: skip
        self.tau_base = config.tau_base

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Two views through both networks."""
        net = self.networks
        p = [net.predict(net.online_features(x).float().mean(dim=(2, 3))) for x in batch.views]
        z = [net.target_project(net.target_features(x).float().mean(dim=(2, 3))) for x in batch.views]
        loss = regression(p[0], z[1]).mean() + regression(p[1], z[0]).mean()
        return StepOutput(loss, {"feature_std": float(std_of_l2_normalized(z[0]))})

    def after_step(self, k: int, K: int) -> None:
        """Move the target."""
        self.networks.update_target(rising(self.tau_base, k, K))

    def trained(self) -> list[nn.Module]:
        """theta."""
        return [self.networks.backbone, self.networks.projector, self.networks.predictor]

    @property
    def module(self) -> nn.Module:
        """theta and xi."""
        return self.networks
