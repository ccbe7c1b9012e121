"""BYOL (Grill et al. 2020): predict the target network's projection of the other view."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.losses import mean_over_valid, regression
from pretrain.methods.method import REGIONS, Siamese
from pretrain.networks import follow, mlp, target_of
from pretrain.schedules import scheduled


class Config(PretrainConfig):
    """BYOL's keys."""

    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    predictor_hidden: int = Field(default=4096, gt=0)
    head_bias: bool = Field(
        default=False, description="bias of the heads' last layer, as in the official HARL code"
    )
    tau_base: float = Field(
        default=0.996, ge=0, le=1, description="start of the EMA's momentum; rises to 1"
    )
    tau_schedule: Literal["cosine", "fixed"] = "cosine"


class Byol(Siamese):
    """L = D(p(x), z(x')) + D(p(x'), z(x)): both directions, not halved."""

    configs = {"": Config}

    def __init__(self, config: Config, regions: Sequence[str] = REGIONS[:1]) -> None:
        super().__init__()
        features = resnet.FEATURES[config.backbone]
        hidden, out = config.projector_hidden, config.projector_out
        self.backbone = resnet.build(**config.network())
        self.projector = mlp(features, hidden, out, bias=config.head_bias)
        self.predictor = mlp(out, config.predictor_hidden, out, bias=config.head_bias)
        self.target_backbone = target_of(self.backbone)
        self.target_projector = target_of(self.projector)
        self.config, self.dim = config, out
        # The last projections, for methods that compare more with them.
        self.targets: list[Tensor] = []

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of both views through both networks."""
        online = [resnet.dense_features(self.backbone, x) for x in views]
        with torch.no_grad():
            return online, [resnet.dense_features(self.target_backbone, x) for x in views]

    def compare(
        self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: str
    ) -> tuple[Tensor, Tensor]:
        """Return D of both directions, summed.

        Each view passes the heads alone: batch statistics are per region.
        """
        p = [self.predictor(self.projector(x)) for x in v]
        with torch.no_grad():
            z = self.targets = [self.target_projector(x) for x in u]
        D_12, D_21 = (mean_over_valid(regression(p[i], z[1 - i]), valid) for i in (0, 1))
        return D_12 + D_21, z[0]

    def log_values(self, k: int, K: int) -> dict[str, float]:
        """Return the EMA's momentum."""
        return {"tau": scheduled(self.config.tau_base, self.config.tau_schedule, k, K)}

    def after_step(self, k: int, K: int) -> None:
        """Move the target, HARL's equation (3)."""
        tau = scheduled(self.config.tau_base, self.config.tau_schedule, k, K)
        follow(self.backbone, self.target_backbone, tau)
        follow(self.projector, self.target_projector, tau)
