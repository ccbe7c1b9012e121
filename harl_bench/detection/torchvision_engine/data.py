"""Batches of an endless shuffled stream of images, bucketed by orientation, from any position on.

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
from torch.utils.data import Dataset as TorchDataset

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets.sample import Dataset, Sample, Samples
from harl_bench.detection.torchvision_engine import transforms
from harl_bench.nn.loading import batches

Batch = list[dict[str, Any]]
Transform = Callable[..., dict[str, Any]]  # a sample (and, for training, a generator) to an item
Index = tuple[int, int]  # position in the stream, index of the image
TRIES = 100  # replacements for an unreadable image; so many in a row are no accident


def batch_indices(
    wide: Sequence[bool], size: int, seed: int, *, rank: int = 0, world: int = 1, group: bool = True
) -> Iterator[list[Index]]:
    """Yield batches of `size` indices for one process, without end.

    Every `world`-th index of one shuffled stream belongs to this rank. Landscape and portrait
    images wait in two buckets (D2:data/common.py:302-339: w > h or not) until one is full.

    Args:
        wide: per image, whether its width exceeds its height.
        seed: decides the order.
        group: False takes images as they come.
    """
    buckets: tuple[list[Index], list[Index]] = ([], [])
    for position, index in enumerate(shuffled(len(wide), seed)):
        if position % world == rank:
            bucket = buckets[wide[index] and group]
            bucket.append((position, index))
            if len(bucket) == size:
                yield list(bucket)
                bucket.clear()


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Yield permutations of range(n) in a row (D2:data/samplers/distributed_sampler.py:58-70)."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


class TrainingImages(TorchDataset[dict[str, Any]]):
    """Training items by stream index.

    An unreadable image is replaced by another one and named under "unreadable". Other errors are
    items, {"error": ...}, because a worker process would raise them with a page of traceback.
    """

    def __init__(self, samples: Samples, seed: int, transform: Transform) -> None:
        self.samples, self.seed, self.transform = samples, seed, transform

    def __getitem__(self, index: Index) -> dict[str, Any]:
        position, image = index
        unreadable: dict[str, str] = {}
        for attempt in range(TRIES):
            retry = [attempt] if attempt else []
            generator = np.random.RandomState([self.seed, position, *retry])
            if attempt:
                image = int(generator.randint(len(self.samples)))
            sample = self.samples[image]
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
    """Yield the training batches of this rank without end, from batch number `start` on.

    Args:
        recipe: gives INPUT, MODEL.MASK_ON, DATALOADER.ASPECT_RATIO_GROUPING and
            SOLVER.IMS_PER_BATCH (of all ranks).
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
    indices = batch_indices(wide, size, seed, rank=rank, world=world, group=group)
    images = TrainingImages(dataset.samples, seed, transform)
    return batches(images, islice(indices, start, None), workers)


class TestImages(TorchDataset[dict[str, Any]]):
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
    """Yield this rank's contiguous part of the test set in batches of one image.

    Another batch size would change the padding.
    """
    transform = transform or partial(
        transforms.for_testing,
        short_px=recipe.INPUT.MIN_SIZE_TEST,
        max_px=recipe.INPUT.MAX_SIZE_TEST,
        channels=recipe.INPUT.FORMAT,
    )
    part = np.array_split(np.arange(len(samples)), world)[rank].tolist()
    return batches(TestImages(samples, transform), ([index] for index in part), workers)
