"""The norm layers of a recipe: BN, SyncBN, naiveSyncBN, FrozenBN.

On one process the first three are the same function. Over several, SyncBN pools all pixels of all
ranks. naiveSyncBN gives each rank equal weight and keeps a biased running variance, as Detectron2's
does (02b5c4e2, layers/batch_norm.py). The two must not be exchanged.
"""

import torch
import torch.nn.functional as F
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.nn import distributed
from harl_bench.nn.norms import SyncBatchNorm, normalised


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and fixed affine terms; all four are buffers.

    Where gradients flow it is a scale and a shift, else torch's fused kernel: the two round
    differently, and Detectron2 chooses in the same way.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps
            )
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1).to(x.dtype) + shift.reshape(1, -1, 1, 1).to(x.dtype)

    @classmethod
    def like(cls, norm: _BatchNorm) -> "FrozenBatchNorm2d":
        """Return a frozen copy of a trainable norm."""
        frozen = cls(norm.num_features, norm.eps)
        # kept, so that names stay the same
        frozen.register_buffer("num_batches_tracked", norm.num_batches_tracked)
        frozen.load_state_dict(norm.state_dict())
        return frozen


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are the plain mean of the ranks' statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if distributed.world_size() == 1 or not self.training:
            return super().forward(x)
        half = x.dtype == torch.float16
        x = x.float() if half else x
        sums = differentiable_all_reduce(torch.cat([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]))
        mean, square = (sums / distributed.world_size()).chunk(2)
        out = normalised(self, x, mean, square - mean * mean, unbias=1.0)
        return out.half() if half else out


NORMS: dict[str, type[nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
}


def make_norm(kind: str, channels: int) -> nn.Module | None:
    """Return the norm layer of a recipe's NORM value, None for ""."""
    return NORMS[kind](channels) if kind else None
