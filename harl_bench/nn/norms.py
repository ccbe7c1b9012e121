"""Batch norm whose statistics are those of all processes, on GPUs and over CPU processes alike; or
of groups of a batch within one process.
"""

import torch
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.nn import distributed


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, over CPU processes too; on one process it is BatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        if distributed.world_size() == 1 or not self.training:
            return _BatchNorm.forward(self, x)
        if x.is_cuda:
            out: Tensor = super().forward(x)
            return out
        return pooled(self, x)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """The same for CPU processes under DistributedDataParallel, which refuses nn.SyncBatchNorm
    there.

    A BatchNorm2d, because fvcore's precise BN looks for torch's own classes and passes over any
    other _BatchNorm.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of pixels, none included."""

    def forward(self, x: Tensor) -> Tensor:
        if distributed.world_size() == 1 or not self.training:
            return super().forward(x)
        return pooled(self, x)


class SplitBatchNorm(nn.BatchNorm2d):
    """Batch norm of `groups` consecutive parts of a batch, each with statistics of its own, as if
    each part were on a GPU of its own.

    The running statistics move by the mean over the groups, as those of SplitBatchNorm in the
    CIFAR-10 demo of MoCo's authors; its groups interleave (i, i + groups, ...).
    """

    def __init__(self, num_features: int, *, groups: int) -> None:
        super().__init__(num_features)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None, "these norms always track statistics"
        assert self.running_var is not None, "these norms always track statistics"
        assert self.num_batches_tracked is not None, "these norms always track statistics"
        assert self.momentum is not None, "their average is not a cumulative one"
        # One row a group.
        means, variances = (b.repeat(self.groups, 1) for b in (self.running_mean, self.running_var))
        parts = [
            batch_norm(part, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            for part, mean, var in zip(x.chunk(self.groups), means, variances, strict=True)
        ]
        self.running_mean.copy_(means.mean(dim=0))
        self.running_var.copy_(variances.mean(dim=0))
        self.num_batches_tracked.add_(1)
        return torch.cat(parts)


def pooled(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm of [B, C, ...] with the statistics of all processes' x, in float32."""
    dims = (0, *range(2, x.dim()))
    exact = x.float()
    total = differentiable_all_reduce(
        torch.cat([exact.sum(dims), exact.new_full((1,), x.numel() / x.shape[1])])
    )
    n = total[-1].detach().double()  # on its device: nobody waits for it
    mean = total[:-1] / n
    centred = exact - mean.reshape(1, -1, *(1,) * (x.dim() - 2))
    var = differentiable_all_reduce((centred * centred).sum(dims)) / n
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return normalised(norm, exact, mean, var, unbias=n / (n - 1)).to(x.dtype)


def normalised(
    norm: _BatchNorm, x: Tensor, mean: Tensor, var: Tensor, unbias: float | Tensor
) -> Tensor:
    """Batch norm with given statistics, which the running ones take in (var times `unbias`)."""
    assert norm.running_mean is not None, "these norms always track statistics"
    assert norm.running_var is not None, "these norms always track statistics"
    assert norm.momentum is not None, "a cumulative average is not what Detectron2 keeps"
    with torch.no_grad():
        norm.running_mean += norm.momentum * (mean - norm.running_mean)
        norm.running_var += norm.momentum * (var * unbias - norm.running_var)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    scale = torch.rsqrt(var + norm.eps) * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - mean * scale
    return x * scale.reshape(shape) + shift.reshape(shape)


def synchronised(
    module: nn.Module, only: type[_BatchNorm] = _BatchNorm, *, traced: bool = False
) -> None:
    """Let every batch norm below `module` use all processes' statistics; parameters, buffers and
    names stay.

    Args:
        only: the kind that is exchanged. DistributedDataParallel refuses nn.SyncBatchNorm on the
            CPU.
        traced: torch.compile is to see the norms: torch's own would end a graph at each.
    """
    for name, child in module.named_children():
        if isinstance(child, only):
            on_gpu = next(child.buffers()).is_cuda
            kind: type[_BatchNorm] = nn.SyncBatchNorm if on_gpu and not traced else CpuSyncBatchNorm
            norm = kind(child.num_features, child.eps, child.momentum, affine=child.affine)
            norm._parameters.update(child._parameters)
            norm._buffers.update(child._buffers)
            norm.training = child.training
            setattr(module, name, norm)
        else:
            synchronised(child, only, traced=traced)
