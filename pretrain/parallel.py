"""One training over several processes: who reads which images, and gradients that are one
process's.

Each process computes the loss of its share of every batch; statistics of batch norm, contrastive
negatives and counts of valid regions are the whole batch's, and the mean of the processes'
gradients is the whole batch's gradient.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harl_bench.core.errors import UsageError
from harl_bench.nn import distributed
from harl_bench.nn.norms import synchronised
from pretrain.batch import Batch
from pretrain.config import PretrainConfig
from pretrain.data import Batches
from pretrain.methods.method import Method, StepOutput

Step = Callable[[Batch, int, int], StepOutput]
# official HARL script: from this fraction of the epochs on, so many batches a step
RAMP = ((0.7, 3), (0.3, 2))


class Share(Batches):
    """This process's images of each batch, in `parts` consecutive pieces."""

    def __init__(
        self, n: int, *, batch_size: int, seed: int, first: int, last: int, parts: int
    ) -> None:
        super().__init__(n, batch_size=batch_size, seed=seed, first=first, last=last)
        self.parts = parts

    def __len__(self) -> int:
        return super().__len__() * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank, world = distributed.rank(), distributed.world_size()
        for batch in super().__iter__():
            size = len(batch) // (self.parts * world)
            for part in range(self.parts):
                start = (part * world + rank) * size
                yield batch[start : start + size]


def plan(per_epoch: int, epochs: int, *, ramp: bool) -> list[tuple[int, int]]:
    """(first batch, how many batches) of every step; more than one only with the official ramp."""
    if not ramp:
        return [(k, 1) for k in range(per_epoch * epochs)]
    steps = []
    for epoch in range(epochs):
        count = next((times for share, times in RAMP if epoch >= share * epochs), 1)
        for position in range(0, per_epoch, count):
            steps.append((epoch * per_epoch + position, min(count, per_epoch - position)))
    return steps


def share_of_batch(batch_size: int, parts: int, world: int | None = None) -> int:
    """Images of one process in one part of a batch; `world` processes, or those there are.

    Raises:
        UsageError: the batch cannot be divided, or leaves one image to a batch norm.
    """
    world = world or distributed.world_size()
    if batch_size % (parts * world) or batch_size // (parts * world) < 2:
        raise UsageError(
            "batch_size must be a multiple of accumulate times the processes, with 2 images or "
            "more for each",
            seen=f"batch_size={batch_size}, accumulate={parts}, {world} processes",
            next=f"batch_size={max(2, batch_size // (parts * world)) * parts * world}",
        )
    return batch_size // (parts * world)


def bn_groups(config: PretrainConfig, processes: int) -> int:
    """Return how many groups batch norm sees in what one process passes at once.

    Raises:
        UsageError: the groups cannot be divided among the processes and parts of a batch, or leave
            one to each part, within which there is nothing to shuffle.
    """
    parts, asked = config.accumulate, config.bn_groups_of(1, 1)
    groups = config.bn_groups_of(processes, parts)
    if not groups:
        raise UsageError(
            "bn_groups must be a multiple of accumulate times the processes, with 2 groups or more "
            "in each part of a batch",
            seen=f"bn_groups={asked}, accumulate={parts}, {processes} processes",
            next=f"bn_groups={parts * max(2, processes)}",
        )
    return groups


def distributed_step(method: Method, *, sync_bn: bool, compiled: bool = False) -> Step:
    """The method's step, whose backward pass averages gradients over the processes.

    Args:
        compiled: the method is compiled afterwards, in one graph; its gradients are exchanged at
            the end of the backward pass then, not along with it.
    """
    if distributed.world_size() == 1:
        return method
    if sync_bn:
        synchronised(method, traced=compiled)
    if compiled:
        torch._dynamo.config.optimize_ddp = False  # would cut the graph at each bucket
    return cast(Step, distributed.averaged(method, gradient_as_bucket_view=True))


def without_sync(step: Step, skip: bool) -> contextlib.AbstractContextManager[None]:
    """Let backward passes keep their gradients to themselves: all parts of a batch but the last."""
    if skip and isinstance(step, DistributedDataParallel):
        return cast("contextlib.AbstractContextManager[None]", step.no_sync())
    return contextlib.nullcontext()


def share_statistics(network: nn.Module) -> None:
    """Give every process the first one's batch-norm statistics, which are those that are saved.

    Without SyncBN each has its own, and what is measured together would be several networks.
    """
    if distributed.world_size() > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


def mean_over_processes(numbers: dict[str, float]) -> dict[str, float]:
    """Each number's mean over all processes."""
    if distributed.world_size() == 1:
        return numbers
    every = distributed.gather(numbers)
    return {name: sum(n[name] for n in every) / len(every) for name in numbers}
