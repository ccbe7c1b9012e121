"""SimSiam (Chen and He 2021): BYOL without a target network; the stopped gradient alone prevents collapse."""

from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.losses import mean_over_valid, regression
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.siamese import whole_picture_step


class Simsiam:
    """L = D(p_1, stopgrad z_2) / 2 + D(p_2, stopgrad z_1) / 2 with D the negative cosine (equations 1 and 2)."""

    online_views: tuple[int, ...] = (0, 1)
    target_views: tuple[int, ...] = ()

    def __init__(self, config: PretrainConfig) -> None:
        features, hidden, out = resnet.FEATURES[config.backbone], config.projector_hidden, config.projector_out
        self.backbone = resnet.build(**config.network())
        self.projector = SimSiamProjectionHead(features, hidden, out)
        self.predictor = SimSiamPredictionHead(out, config.predictor_hidden, out)
        self.networks = nn.ModuleDict(
            {"backbone": self.backbone, "projector": self.projector, "predictor": self.predictor}
        )
        self.constant_lr = [self.predictor]  # the authors' --fix-pred-lr, their default recipe

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both views through the one network."""
        return [resnet.dense_features(self.backbone, x) for x in views], []

    def distance(self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: int) -> tuple[Tensor, Tensor]:
        """Negative cosine of both directions, halved: regression() is 2 + 2 D."""
        z = [self.projector(x) for x in v]
        p = [self.predictor(x) for x in z]
        there, back = (regression(p[i], z[1 - i].detach()) / 2 - 1 for i in (0, 1))
        return (mean_over_valid(there, valid) + mean_over_valid(back, valid)) / 2, z[0].detach()

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Two views through one network."""
        return whole_picture_step(self, batch, k, K)

    def values(self, k: int, K: int) -> dict[str, float]:
        """No schedule of its own."""
        return {}

    def after_step(self, k: int, K: int) -> None:
        """Nothing follows."""

    def trained(self) -> list[nn.Module]:
        """f, g and q."""
        return [self.backbone, self.projector, self.predictor]

    @property
    def module(self) -> nn.Module:
        """f, g and q."""
        return self.networks
