"""SimCLR (Chen et al. 2020): the other view of a picture among all views of the batch."""

from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.losses import nt_xent
from pretrain.methods.method import Batch, StepOutput
from pretrain.methods.siamese import whole_picture_step


class Simclr:
    """NT-Xent over both views of the global batch (equation 1, algorithm 1)."""

    online_views: tuple[int, ...] = (0, 1)
    target_views: tuple[int, ...] = ()

    def __init__(self, config: PretrainConfig) -> None:
        self.backbone = resnet.build(**config.network())
        self.projector = SimCLRProjectionHead(
            resnet.FEATURES[config.backbone], config.projector_hidden, config.projector_out
        )
        self.networks = nn.ModuleDict({"backbone": self.backbone, "projector": self.projector})
        self.temperature = config.temperature

    def features(self, views: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both views through the one network, one after the other as in BYOL."""
        return [resnet.dense_features(self.backbone, x) for x in views], []

    def distance(self, v: list[Tensor], u: list[Tensor], valid: Tensor | None, region: int) -> tuple[Tensor, Tensor]:
        """NT-Xent; samples that do not count are neither anchors nor negatives."""
        z_1, z_2 = (self.projector(x) for x in v)
        return nt_xent(z_1, z_2, self.temperature, valid), z_1.detach()

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Two views through one network."""
        return whole_picture_step(self, batch, k, K)

    def values(self, k: int, K: int) -> dict[str, float]:
        """No schedule of its own."""
        return {}

    def after_step(self, k: int, K: int) -> None:
        """Nothing follows."""

    def trained(self) -> list[nn.Module]:
        """f and g."""
        return [self.backbone, self.projector]

    @property
    def module(self) -> nn.Module:
        """f and g."""
        return self.networks
