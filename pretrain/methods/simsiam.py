"""SimSiam (Chen and He 2021): BYOL without a target network.

The stopped gradient alone prevents collapse.
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.losses import mean_over_valid, regression
from pretrain.methods.method import REGIONS, Siamese
from pretrain.networks import Head


class Config(PretrainConfig):
    """SimSiam's keys."""

    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    predictor_hidden: int = Field(default=4096, gt=0)


class Simsiam(Siamese):
    """L = D(p_1, stopgrad z_2) / 2 + D(p_2, stopgrad z_1) / 2, D = -cos (equations 1 and 2)."""

    configs = {"": Config}
    target_views = ()

    def __init__(self, config: Config, regions: Sequence[str] = REGIONS[:1]) -> None:
        super().__init__()
        features = resnet.FEATURES[config.backbone]
        hidden, out = config.projector_hidden, config.projector_out
        self.backbone = resnet.build(**config.network())
        self.projector = Head(
            nn.Linear(features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )
        self.predictor = Head(
            nn.Linear(out, config.predictor_hidden, bias=False),
            nn.BatchNorm1d(config.predictor_hidden),
            nn.ReLU(),
            nn.Linear(config.predictor_hidden, out),
        )
        self.constant_lr = [self.predictor]  # the authors' --fix-pred-lr, their default recipe
        self.dim = out

    def compare(
        self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: str
    ) -> tuple[Tensor, Tensor]:
        """Return the negative cosine of both directions, halved: regression() is 2 + 2 D."""
        z = [self.projector(x) for x in v]
        p = [self.predictor(x) for x in z]
        D_12, D_21 = (regression(p[i], z[1 - i].detach()) / 2 - 1 for i in (0, 1))
        return (mean_over_valid(D_12, valid) + mean_over_valid(D_21, valid)) / 2, z[0].detach()
