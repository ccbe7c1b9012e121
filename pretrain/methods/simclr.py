"""SimCLR (Chen et al. 2020): find an image's other view among all views of the batch."""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.losses import nt_xent
from pretrain.methods.method import REGIONS, Siamese
from pretrain.networks import Head


class Config(PretrainConfig):
    """SimCLR's keys."""

    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    temperature: float = Field(default=0.1, gt=0, description="of the contrastive loss")


class Simclr(Siamese):
    """NT-Xent over both views of the global batch (equation 1, algorithm 1)."""

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
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out),
        )
        self.temperature, self.dim = config.temperature, out

    def compare(
        self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: str
    ) -> tuple[Tensor, Tensor]:
        """Return NT-Xent. Samples that do not count are neither anchors nor negatives."""
        z_1, z_2 = (self.projector(x) for x in v)
        return nt_xent(z_1, z_2, self.temperature, valid), z_1.detach()
