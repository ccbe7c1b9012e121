"""From a file to the network's pixels: the one evaluation transform of all frozen protocols."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.splits import Rows
from harl_bench.core.errors import DataError

ASPECT = 16  # of a longer strip only the middle is resized: the centre crop sees nothing of the rest


@dataclass(frozen=True)
class Transform:
    """Short side to `short_side_px` (bicubic, antialiased), centre crop of `image_size` px, the input convention."""

    image_size: int
    short_side_px: int
    input_format: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]

    def text(self) -> str:
        """Everything the pixels depend on, for the key and the result."""
        return (
            f"RGB, short side {self.short_side_px} bicubic antialias (PIL), centre crop {self.image_size}, "
            f"{self.input_format}, mean {list(self.pixel_mean)}, std {list(self.pixel_std)}"
        )


class Pictures(Dataset[tuple[int, Tensor]]):
    """(row, picture [3, S, S] uint8); an unreadable one comes as an empty tensor."""

    def __init__(self, data: DataSet, rows: Rows, transform: Transform) -> None:
        self.data, self.rows, self.transform = data, rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        row = int(self.rows[index])
        try:
            picture = self.data.read(row)
        except DataError:
            return row, torch.empty(0, dtype=torch.uint8)
        longest = ASPECT * min(picture.size)
        if max(picture.size) > longest:
            picture = functional.center_crop(picture, [min(picture.height, longest), min(picture.width, longest)])
        picture = functional.resize(
            picture, [self.transform.short_side_px], interpolation=InterpolationMode.BICUBIC, antialias=True
        )
        picture = functional.center_crop(picture, [self.transform.image_size] * 2)
        return row, functional.pil_to_tensor(picture)


def collated(batch: list[tuple[int, Tensor]]) -> tuple[Rows, Tensor, Rows]:
    """(rows, pictures [B, 3, S, S] uint8, unreadable rows)"""
    good = [(row, picture) for row, picture in batch if picture.numel()]
    bad = [row for row, picture in batch if not picture.numel()]
    pictures = torch.stack([p for _, p in good]) if good else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    return np.array([r for r, _ in good], dtype=np.int64), pictures, np.array(bad, dtype=np.int64)
