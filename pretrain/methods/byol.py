"""BYOL (Grill et al. 2020): predict the target network's projection of the other view."""

from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.ema import OnlineTarget
from pretrain.losses import mean_over_valid, regression
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.siamese import whole_picture_step
from pretrain.schedules import momentum


class Byol:
    """L = D(p(x), z(x')) + D(p(x'), z(x)): both directions, not halved."""

    online_views: tuple[int, ...] = (0, 1)
    target_views: tuple[int, ...] = (0, 1)

    def __init__(self, config: PretrainConfig) -> None:
        self.backbone = resnet.build(**config.network())
        self.networks = OnlineTarget(
            self.backbone, features=resnet.FEATURES[config.backbone], hidden=config.projector_hidden,
            out=config.projector_out, predictor_hidden=config.predictor_hidden, bias=config.head_bias,
        )  # fmt: skip
        self.config = config
        self.targets: list[Tensor] = []  # the last projections, for who compares more with them

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both views through both networks."""
        net = self.networks
        return [net.online_features(x) for x in views], [net.target_features(x) for x in views]

    def distance(self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: int) -> tuple[Tensor, Tensor]:
        """D of both directions, summed; one pass through the heads per view, so batch statistics are per region."""
        p = [self.networks.predict(x) for x in v]
        z = self.targets = [self.networks.target_project(x) for x in u]
        loss = mean_over_valid(regression(p[0], z[1]), valid) + mean_over_valid(regression(p[1], z[0]), valid)
        return loss, z[0]

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Two views through both networks."""
        return whole_picture_step(self, batch, k, K)

    def values(self, k: int, K: int) -> dict[str, float]:
        """tau."""
        return {"tau": momentum(self.config, k, K)}

    def after_step(self, k: int, K: int) -> None:
        """Move the target, HARL's equation (3)."""
        self.networks.update_target(momentum(self.config, k, K))

    def trained(self) -> list[nn.Module]:
        """theta."""
        return [self.networks.backbone, self.networks.projector, self.networks.predictor]

    @property
    def module(self) -> nn.Module:
        """theta and xi."""
        return self.networks
