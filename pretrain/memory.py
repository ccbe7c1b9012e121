"""What a run needs: memory of each GPU, and shared memory of the data workers, before it starts.

Activations are counted on a network without values: what autograd keeps of a view for the backward
pass, which grows with the images' area. Heads, workspace and the allocator's gaps are left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.methods import build, method_class
from pretrain.views import views_of

MIB, GIB = 2**20, 2**30
FLOAT = 4  # bytes of float32
READ_AHEAD = 2  # batches of each data worker, DataLoader's default


@dataclass(frozen=True)
class Need:
    """Bytes.

    Args:
        images: how many, of one process in one part of a batch.
        image: activations of one image.
        fixed: weights, their gradients and momenta, targets, queues, this batch and the next one.
        shared: batches that all data workers of this machine hold.
    """

    images: int
    image: float
    fixed: float
    shared: float

    @property
    def gpu(self) -> float:
        """Of one GPU."""
        return self.fixed + self.images * self.image


def needed(
    config: PretrainConfig, images: int, *, processes: int, workers: int, on_gpu: bool = True
) -> Need:
    """Return what a run needs.

    Args:
        images: of one process in one part of a batch.
        processes: of this machine.
        workers: for each process.
        on_gpu: where views travel as bytes, their colors still to come.
    """
    method = method_class(config.method)
    tensors = build(config)
    trained = sum(p.numel() for p in tensors.parameters() if p.requires_grad)
    state = sum(x.numel() * x.element_size() for x in [*tensors.parameters(), *tensors.buffers()])
    batch = images * pixels(config)
    return Need(
        images,
        image=method.passes(config) * kept(config),
        fixed=state + FLOAT * (2 * trained + 2 * batch),
        shared=READ_AHEAD * workers * processes * batch * (1 if on_gpu else FLOAT),
    )


def pixels(config: PretrainConfig) -> int:
    """Return how many numbers the views of one image have."""
    return len(views_of(config)) * 3 * config.image_size**2


def kept(config: PretrainConfig) -> float:
    """Return the bytes that the backbone keeps of one view for its backward pass."""
    with torch.device("meta"):
        network = resnet.build(**config.network())
        views = torch.empty(2, 3, config.image_size, config.image_size)
    storages: dict[Any, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if len(x) == len(views):  # of the images, not weights or statistics
            storages[x.untyped_storage()._cdata] = x
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        resnet.dense_features(network, views)
    half = config.precision == "bf16"
    sizes = (2 if half and x.is_floating_point() else x.element_size() for x in storages.values())
    elements = (x.numel() for x in storages.values())
    return sum(n * size for n, size in zip(elements, sizes, strict=True)) / len(views)
