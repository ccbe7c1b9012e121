"""Batches of an endless shuffled stream of crops, from any iteration on.

Which images form a batch and how each is changed is a function of (seed, position in the stream)
alone: the numbers of processes and of workers, and interruptions, change nothing.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.images import read_rgb
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.nn.loading import batches
from harl_bench.segmentation import transforms
from harl_bench.segmentation.datasets.checks import require_size
from harl_bench.segmentation.datasets.dataset import Split
from harl_bench.segmentation.recipe import Recipe

TRIES = 100  # replacements for an unreadable image; so many in a row are no accident
Sample = dict[str, Any]


class TrainingCrops(TorchDataset[Sample]):
    """Padded crops by (position, row): {"image" [3, S, S] and "label" [S, S] uint8, "size"}.

    An unreadable image is replaced by another one and named under "unreadable". Other errors are
    samples, {"error": ...}, because a worker process would raise them with a page of traceback.
    """

    def __init__(self, split: Split, recipe: Recipe, seed: int) -> None:
        self.split, self.settings, self.seed = split, recipe.input, seed

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        position, row = index
        unreadable: dict[str, str] = {}
        for attempt in range(TRIES):
            random = np.random.RandomState([self.seed, position, *([attempt] if attempt else [])])
            if attempt:
                row = int(random.randint(len(self.split.items)))
            try:
                return self._crop(row, random) | {"unreadable": unreadable}
            except UnreadableError as error:
                unreadable[self.split.items[row].image] = str(error)
            except DataError as error:
                return {"error": error}
        what = f"{TRIES} images in a row are unreadable"
        return {"error": DataError(what, where=self.split.items[row].image)}

    def _crop(self, row: int, random: np.random.RandomState) -> Sample:
        path = self.split.items[row]
        image, label = np.asarray(read_rgb(path.image)), self.split.label(row)
        require_size(label, (image.shape[1], image.shape[0]), path.label)
        image, label = transforms.for_training(image, label, random, self.settings)
        size = label.shape
        image, label = transforms.padded(image, label, self.settings.crop_px)
        return {
            "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
            "label": torch.from_numpy(label),
            "size": torch.tensor(size),
        }


class TestImages(TorchDataset[Sample]):
    """Test images by row: {"row", "image" [3, H, W] uint8 as the network sees it, "label" uint8}.

    The label is of the original size.
    """

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self.split, self.settings = split, recipe.test

    def __getitem__(self, row: int) -> Sample:
        path = self.split.items[row]
        try:
            image, label = np.asarray(read_rgb(path.image)), self.split.label(row)
            require_size(label, (image.shape[1], image.shape[0]), path.label)
        except DataError as error:
            return {"error": error}
        if self.settings.scale_px:
            limits = self.settings.scale_px
            size = transforms.fitted((image.shape[1], image.shape[0]), limits)
            image = transforms.resized(image, size)
        return {
            "row": row,
            "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
            "label": label,
        }


class Stream:
    """Batch sampler of one process: lists of (position, row), from iteration `first` on."""

    def __init__(
        self, n: int, batch: int, seed: int, *, first: int, last: int, rank: int, world: int
    ) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share, current = self.batch // self.world, -1
        order = np.arange(self.n)
        for iteration in range(self.first, self.last):
            start = iteration * self.batch + self.rank * share
            batch = []
            for position in range(start, start + share):
                epoch, i = divmod(position, self.n)
                if epoch != current:
                    current = epoch
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
                batch.append((position, int(order[i])))
            yield batch


def training_batches(
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    first: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[list[Sample]]:
    """Yield this process's samples of each iteration, from `first` to the recipe's last.

    Raises:
        DataError: a label contradicts its image.
    """
    solver = recipe.solver
    stream = Stream(
        len(split.items),
        solver.batch,
        seed,
        first=first,
        last=solver.iterations,
        rank=rank,
        world=world,
    )
    return _read(TrainingCrops(split, recipe, seed), stream, workers)


def evaluation_images(
    split: Split, recipe: Recipe, *, workers: int, rank: int = 0, world: int = 1
) -> Iterator[Sample]:
    """Yield this process's part of the test images, one by one: their sizes differ."""
    part = np.array_split(np.arange(len(split.items)), world)[rank].tolist()
    for (sample,) in _read(TestImages(split, recipe), [[row] for row in part], workers):
        yield sample


def stacked(samples: list[Sample], recipe: Recipe, convention: Any, device: Any) -> list[Tensor]:
    """Return [normalized images [B, 3, S, S], labels [B, S, S] int64] on the device."""
    images, labels, sizes = (
        torch.stack([sample[key] for sample in samples]).to(device, non_blocking=True)
        for key in ("image", "label", "size")
    )
    x = normalized(images, recipe, convention)
    side = torch.arange(x.shape[-1], device=x.device)
    inside = (side[:, None] < sizes[:, 0, None, None]) & (side < sizes[:, 1, None, None])
    return [x * inside[:, None], labels.long()]


def normalized(images: Tensor, recipe: Recipe, convention: Any) -> Tensor:
    """Return uint8 RGB [B, 3, H, W] as the checkpoint's network wants them, float32.

    Args:
        convention: the checkpoint's InputConvention; the recipe's mean and deviation go before its.
    """
    mean = recipe.input.pixel_mean or convention.pixel_mean
    std = recipe.input.pixel_std or convention.pixel_std
    x = images.flip(1) if convention.input_format == "BGR" else images
    mean, std = (torch.tensor(v, device=x.device).reshape(1, 3, 1, 1) for v in (mean, std))
    out: Tensor = (x.float() - mean) / std
    return out


def _read(dataset: Any, order: Iterable[list[Any]], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the samples of each list of indices.

    Threads of OpenCV end before workers are forked: those would wait for them without end.
    """
    if workers:
        cv2.setNumThreads(1)
    return batches(dataset, order, workers, _begin_worker)


def _begin_worker(worker: int) -> None:
    leave_signals_to_the_parent()
    cv2.setNumThreads(1)
