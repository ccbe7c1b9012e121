"""Batches as lists of samples, read by worker processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from harl_bench.core.stopping import leave_signals_to_the_parent


def batches(
    dataset: Any,
    order: Iterable[list[Any]],
    workers: int,
    begin: Callable[[int], None] = leave_signals_to_the_parent,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the samples of each list of indices in `order`.

    Args:
        begin: called by each worker process first.

    Raises:
        BenchError: what a sample holds as "error", because a worker that raises it would print a
            page of traceback.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=_BatchSampler(order),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=begin,
        generator=torch.Generator(),  # else starting the loader would advance torch's global one
    )
    for samples in loader:
        for sample in samples:
            if "error" in sample:
                raise sample["error"]
        yield samples


class _BatchSampler:
    """An iterable without the length that DataLoader would ask a generator for."""

    def __init__(self, order: Iterable[list[Any]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.order)
