"""From a file to the network's pixels: the evaluation transform of all protocols, and the random
crops of training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomResizedCrop, functional

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.splits import Rows
from harl_bench.core.errors import DataError
from harl_bench.core.unreadable import MAX_UNREADABLE, too_many

FLIP = 0.5
ASPECT = (
    16  # of a longer strip only the middle is resized: the centre crop sees nothing of the rest
)


@dataclass(frozen=True)
class Transform:
    """Short side to `short_side_px` (bicubic, antialiased), centre crop of `image_size` px, the
    input convention.
    """

    image_size: int
    short_side_px: int
    input_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def text(self) -> str:
        """Everything the pixels depend on, for the key and the result."""
        return (
            f"RGB, short side {self.short_side_px} bicubic antialias (PIL), centre crop "
            f"{self.image_size}, "
            f"{self.input_format}, mean {list(self.pixel_mean)}, std {list(self.pixel_std)}"
        )


class Images(Dataset[tuple[int, Tensor]]):
    """(row, image [3, S, S] uint8); an unreadable one comes as an empty tensor."""

    def __init__(self, data: DataSet, rows: Rows, transform: Transform) -> None:
        self.data, self.rows, self.transform = data, rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        row = int(self.rows[index])
        try:
            image = self.data.read(row)
        except DataError:
            return row, torch.empty(0, dtype=torch.uint8)
        longest = ASPECT * min(image.size)
        if max(image.size) > longest:
            image = functional.center_crop(
                image, [min(image.height, longest), min(image.width, longest)]
            )
        image = functional.resize(
            image,
            [self.transform.short_side_px],
            interpolation=InterpolationMode.BICUBIC,
            antialias=True,
        )
        image = functional.center_crop(image, [self.transform.image_size] * 2)
        return row, functional.pil_to_tensor(image)


def collated(batch: list[tuple[int, Tensor]]) -> tuple[Rows, Tensor, Rows]:
    """(rows, images [B, 3, S, S] uint8, unreadable rows)"""
    good = [(row, image) for row, image in batch if image.numel()]
    bad = [row for row, image in batch if not image.numel()]
    images = (
        torch.stack([p for _, p in good]) if good else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    )
    return np.array([r for r, _ in good], dtype=np.int64), images, np.array(bad, dtype=np.int64)


class Crops(Dataset[tuple[int, Tensor]]):
    """(row, random crop [3, S, S] uint8): RandomResizedCrop and flip, nothing else; unreadable ones
    as in Images.

    Item (epoch, row) is decided by (seed, epoch, row) alone, whichever worker draws it.
    """

    def __init__(
        self, data: DataSet, transform: Transform, crop_area: tuple[float, float], seed: int
    ) -> None:
        self.data, self.size, self.area, self.seed = data, transform.image_size, crop_area, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, Tensor]:
        epoch, row = item
        try:
            image = self.data.read(row)
        except DataError:
            return row, torch.empty(0, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(
                int(
                    np.random.SeedSequence((self.seed, epoch, row)).generate_state(1, np.uint64)[0]
                    >> 1
                )
            )
            top, left, height, width = RandomResizedCrop.get_params(
                image, list(self.area), [3 / 4, 4 / 3]
            )
            flip = float(torch.rand(())) < FLIP
        image = functional.resized_crop(
            image,
            top,
            left,
            height,
            width,
            [self.size] * 2,
            interpolation=InterpolationMode.BICUBIC,
            antialias=True,
        )
        return row, functional.pil_to_tensor(functional.horizontal_flip(image) if flip else image)


def normalised(images: Tensor, transform: Transform, device: torch.device) -> Tensor:
    """[B, 3, S, S] uint8 to float32 on the device, by the checkpoint's convention, channels
    last.
    """
    mean, std = (
        torch.tensor(v, device=device).view(3, 1, 1)
        for v in (transform.pixel_mean, transform.pixel_std)
    )
    pixels = images.to(device, non_blocking=True).float()
    pixels = pixels.flip(1) if transform.input_format == "BGR" else pixels
    pixels = (pixels - mean) / std  # both in the order of input_format, as Detectron2 states them
    return pixels.contiguous(memory_format=torch.channels_last)


class Unreadable:
    """Counts the images that could not be decoded.

    Raises (from add):
        DataError: more than MAX_UNREADABLE of the data set, unless allowed.
    """

    def __init__(self, data: DataSet, allowed: bool) -> None:
        self._data, self._allowed = data, allowed
        self._rows: set[int] = set()

    @property
    def paths(self) -> list[str]:
        """Which they were."""
        return [self._data.paths[row] for row in sorted(self._rows)]

    def add(self, rows: Rows) -> None:
        """Take note of a batch's."""
        self._rows |= set(rows.tolist())
        if too_many(len(self._rows), len(self._data.paths), allowed=self._allowed):
            refuse_unreadable(self._data, self.paths)


def refuse_unreadable(data: DataSet, paths: list[str]) -> None:
    """Stop because of too many.

    Raises:
        DataError: always.
    """
    names = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    raise DataError(
        f"{len(paths)} of {len(data.paths)} images are unreadable, more than {MAX_UNREADABLE:.0%}",
        where=data.root,
        seen=names,
        next="replace or remove them, or pass --allow-unreadable",
    )
