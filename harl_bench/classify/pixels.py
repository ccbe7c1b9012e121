"""From a file to the network's pixels: the evaluation transform, and random crops of training."""

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
# Of a longer strip only the middle is resized, as the centre crop uses nothing of the rest.
ASPECT = 16


@dataclass(frozen=True)
class Transform:
    """Short side to `short_side_px` (bicubic, antialiased), centre crop, input convention.

    With `squeezed`, the whole image is resized to a square instead of being cropped.
    """

    image_size: int
    short_side_px: int
    input_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    squeezed: bool = False

    def text(self) -> str:
        """Return everything the pixels depend on, for the key and the result."""
        last = "squeezed to" if self.squeezed else "centre crop"
        return (
            f"RGB, short side {self.short_side_px} bicubic antialias (PIL), "
            f"{last} {self.image_size}, {self.input_format}, "
            f"mean {list(self.pixel_mean)}, std {list(self.pixel_std)}"
        )


class CenterCrops(Dataset[tuple[int, Tensor]]):
    """Items (row, image [3, S, S] uint8), with an empty tensor for an unreadable image."""

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
        bicubic, square = InterpolationMode.BICUBIC, [self.transform.image_size] * 2
        image = functional.resize(
            image, [self.transform.short_side_px], interpolation=bicubic, antialias=True
        )
        if self.transform.squeezed:
            image = functional.resize(image, square, interpolation=bicubic, antialias=True)
        else:
            image = functional.center_crop(image, square)
        return row, functional.pil_to_tensor(image)


def collated(batch: list[tuple[int, Tensor]]) -> tuple[Rows, Tensor, Rows]:
    """Return (rows, images [B, 3, S, S] uint8, unreadable rows)."""
    good = [row for row, image in batch if image.numel()]
    bad = [row for row, image in batch if not image.numel()]
    readable = [image for _, image in batch if image.numel()]
    images = torch.stack(readable) if readable else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    return np.array(good, dtype=np.int64), images, np.array(bad, dtype=np.int64)


class Crops(Dataset[tuple[int, Tensor]]):
    """Items (row, random crop [3, S, S] uint8), by RandomResizedCrop and flip.

    Item (epoch, row) depends on (seed, epoch, row) alone, whichever worker draws it. Unreadable
    images are as in CenterCrops.
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
            sequence = np.random.SeedSequence((self.seed, epoch, row))
            torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
            box = RandomResizedCrop.get_params(image, list(self.area), [3 / 4, 4 / 3])
            flip = float(torch.rand(())) < FLIP
        size, bicubic = [self.size] * 2, InterpolationMode.BICUBIC
        image = functional.resized_crop(image, *box, size, interpolation=bicubic, antialias=True)
        return row, functional.pil_to_tensor(functional.horizontal_flip(image) if flip else image)


def normalised(images: Tensor, transform: Transform, device: torch.device) -> Tensor:
    """Return uint8 images [B, 3, S, S] as float32 on the device, by the checkpoint's convention."""
    mean = torch.tensor(transform.pixel_mean, device=device).view(3, 1, 1)
    std = torch.tensor(transform.pixel_std, device=device).view(3, 1, 1)
    pixels = images.to(device, non_blocking=True).float()
    pixels = pixels.flip(1) if transform.input_format == "BGR" else pixels
    pixels = (pixels - mean) / std  # both in the order of input_format, as Detectron2 states them
    return pixels.contiguous(memory_format=torch.channels_last)


class Unreadable:
    """The images that could not be decoded."""

    def __init__(self, data: DataSet, allowed: bool) -> None:
        self._data, self._allowed = data, allowed
        self._rows: set[int] = set()

    @property
    def paths(self) -> list[str]:
        """Return their paths, sorted."""
        return [self._data.paths[row] for row in sorted(self._rows)]

    def add(self, rows: Rows) -> None:
        """Add those of a batch.

        Raises:
            DataError: they are more than MAX_UNREADABLE of the data set, unless allowed.
        """
        self._rows |= set(rows.tolist())
        if too_many(len(self._rows), len(self._data.paths), allowed=self._allowed):
            refuse_unreadable(self._data, self.paths)


def refuse_unreadable(data: DataSet, paths: list[str]) -> None:
    """Raise the DataError of too many unreadable images."""
    names = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    raise DataError(
        f"{len(paths)} of {len(data.paths)} images are unreadable, more than {MAX_UNREADABLE:.0%}",
        where=data.root,
        seen=names,
        next="replace or remove them, or pass --allow-unreadable",
    )
