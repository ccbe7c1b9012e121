"""Batches: an endless shuffled stream of images, bucketed by orientation, that can be entered at
any position.

The stream is a function of (seed, position) alone. Which images form batch k, and how each is
resized and flipped, depend neither on the number of worker processes nor on an interruption, so a
resumed run sees the very batches it would have seen. The order equals Detectron2's
(TrainingSampler, AspectRatioGroupedDataset) with the same SEED and no workers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from harl_bench.core.errors import DataError
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.detection.datasets.sample import Dataset, Sample, Samples
from harl_bench.detection.torchvision_engine import transforms

Batch = list[dict[str, Any]]
Transform = Callable[..., dict[str, Any]]  # a sample (and, for training, a generator) to an item
Place = tuple[int, int]  # position in the stream, index of the image
TRIES = 100  # replacements looked for when an image is unreadable; so many in a row is no accident


def places(
    wide: Sequence[bool], size: int, seed: int, *, rank: int = 0, world: int = 1, group: bool = True
) -> Iterator[list[Place]]:
    """Endless batches of `size` places for one process.

    Every `world`-th place of one shuffled stream belongs to this rank; landscape and portrait
    images wait in two buckets (D2:data/common.py:302-339: w > h or not) until one is full.

    Args:
        wide: per image, whether its width exceeds its height.
        seed: decides the order.
        group: False takes images as they come.
    """
    buckets: tuple[list[Place], list[Place]] = ([], [])
    for position, index in enumerate(shuffled(len(wide), seed)):
        if position % world == rank:
            bucket = buckets[wide[index] and group]
            bucket.append((position, index))
            if len(bucket) == size:
                yield list(bucket)
                bucket.clear()


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Permutations of range(n), one after the other
    (D2:data/samplers/distributed_sampler.py:58-70).
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


class Images(TorchDataset[dict[str, Any]]):
    """Training items by place.

    An unreadable image is replaced by another one and named under "unreadable".

    Errors are items, {"error": ...}: raised in a worker process, they would reach the user as a
    page of traceback.
    """

    def __init__(self, samples: Samples, seed: int, transform: Transform) -> None:
        self.samples, self.seed, self.transform = samples, seed, transform

    def __getitem__(self, place: Place) -> dict[str, Any]:
        position, index = place
        unreadable: dict[str, str] = {}
        for attempt in range(TRIES):
            generator = np.random.RandomState(
                [self.seed, position, attempt] if attempt else [self.seed, position]
            )
            if attempt:
                index = int(generator.randint(len(self.samples)))
            sample = self.samples[index]
            try:
                return self.transform(sample, generator) | {"unreadable": unreadable}
            except transforms.WrongSizeError as error:
                return {"error": error}
            except DataError as error:
                unreadable[sample.path] = str(error)
        return {"error": DataError(f"{TRIES} images in a row are unreadable", where=sample.path)}


def training_batches(
    dataset: Dataset,
    recipe: Any,
    *,
    seed: int,
    start: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    transform: Transform | None = None,
) -> Iterator[Batch]:
    """Endless training batches of this rank, beginning with batch number `start`.

    Args:
        recipe: INPUT, MODEL.MASK_ON, DATALOADER.ASPECT_RATIO_GROUPING and SOLVER.IMS_PER_BATCH (of
            all ranks) count.
        transform: another mapper than ours, Detectron2's.
    """
    transform = transform or partial(
        transforms.for_training,
        sizes_px=recipe.INPUT.MIN_SIZE_TRAIN,
        max_px=recipe.INPUT.MAX_SIZE_TRAIN,
        flip=recipe.INPUT.RANDOM_FLIP == "horizontal",
        channels=recipe.INPUT.FORMAT,
        masks=recipe.MODEL.MASK_ON,
        bitmasks=dataset.bitmasks,
    )
    wide = [sample.width > sample.height for sample in dataset.samples]
    size, group = recipe.SOLVER.IMS_PER_BATCH // world, recipe.DATALOADER.ASPECT_RATIO_GROUPING
    order = islice(places(wide, size, seed, rank=rank, world=world, group=group), start, None)
    return _batches(Images(dataset.samples, seed, transform), order, workers)


class Tests(TorchDataset[dict[str, Any]]):
    """Test items by index."""

    def __init__(self, samples: Sequence[Sample], transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self.transform(self.samples[index])
        except DataError as error:
            return {"error": error}


def evaluation_batches(
    samples: Samples,
    recipe: Any,
    *,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    transform: Transform | None = None,
) -> Iterator[Batch]:
    """Batches of one image (another batch size would change the padding); a rank gets a contiguous
    share.
    """
    transform = transform or partial(
        transforms.for_testing,
        short_px=recipe.INPUT.MIN_SIZE_TEST,
        max_px=recipe.INPUT.MAX_SIZE_TEST,
        channels=recipe.INPUT.FORMAT,
    )
    share = np.array_split(np.arange(len(samples)), world)[rank].tolist()
    return _batches(Tests(samples, transform), ([index] for index in share), workers)


def _batches(dataset: Any, order: Iterator[list[Any]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=_Once(order),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_signals_to_the_parent,
        # its own: else starting the loader would move torch's global generator
        generator=torch.Generator(),
    )
    for batch in loader:
        for item in batch:
            if "error" in item:
                raise item["error"]
        yield batch


class _Once:
    """DataLoader asks for the length of what has one; an iterator has none."""

    def __init__(self, order: Iterator[list[Any]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[Any]]:
        return self.order
