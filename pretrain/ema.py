"""The pair every BYOL-like method trains: an online network theta, and a target xi that follows it."""

import copy

import torch
import torchvision
from lightly.models.utils import deactivate_requires_grad
from torch import Tensor, nn

from harl_bench.nn import resnet
from pretrain.heads import mlp


class OnlineTarget(nn.Module):
    """theta = (f, g, q), xi = (f, g).

    The target runs in train mode and its batch-norm buffers evolve on their own; only parameters are averaged [BYOL].

    Args:
        backbone: f, a ResNet without classifier.
        features: C, its channels.
        hidden, out, predictor_hidden: widths of g and q.
        bias: of their last layers.
    """

    def __init__(
        self, backbone: torchvision.models.ResNet, *, features: int, hidden: int, out: int, predictor_hidden: int,
        bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.projector = mlp(features, hidden, out, bias=bias)
        self.predictor = mlp(out, predictor_hidden, out, bias=bias)
        self.target_backbone = copy.deepcopy(backbone)
        self.target_projector = copy.deepcopy(self.projector)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projector)

    def online_features(self, x: Tensor) -> Tensor:
        """h = f_theta(x): [B, 3, H, W] to [B, C, S, S]."""
        return resnet.dense_features(self.backbone, x)

    @torch.no_grad()
    def target_features(self, x: Tensor) -> Tensor:
        """h = f_xi(x), without gradient."""
        return resnet.dense_features(self.target_backbone, x)

    def predict(self, v: Tensor) -> Tensor:
        """p = q(g(v)): [B, C] to [B, D]."""
        p: Tensor = self.predictor(self.projector(v))
        return p

    @torch.no_grad()
    def target_project(self, v: Tensor) -> Tensor:
        """z = g_xi(v), without gradient: [B, C] to [B, D]."""
        z: Tensor = self.target_projector(v)
        return z

    def update_target(self, tau: float) -> None:
        """xi <- tau xi + (1 - tau) theta, HARL's equation (3)."""
        follow(self.backbone, self.target_backbone, tau)
        follow(self.projector, self.target_projector, tau)


@torch.no_grad()
def follow(online: nn.Module, target: nn.Module, tau: float) -> None:
    """target <- tau target + (1 - tau) online, parameters only, in two kernels where there are GPUs."""
    followers: list[Tensor] = list(target.parameters())
    leaders: list[Tensor] = list(online.parameters())
    torch._foreach_mul_(followers, tau)
    torch._foreach_add_(followers, leaders, alpha=1 - tau)
