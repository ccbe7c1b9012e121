"""The two arrays of a feature folder: written row by row, read in blocks where they are large.

Processes of several machines may write at once. They write bytes, never through a memory map: a
network file system would send whole pages, with the stale rows of others in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harl_bench.classify.protocol import IN_MEMORY
from harl_bench.classify.splits import Rows
from harl_bench.core.files import replacing


class Stored:
    """Features [N, D] float32 that stay in their file; `split` reads them as a tensor's does."""

    def __init__(self, values: Any, rows: Rows, device: torch.device) -> None:
        self.values, self.rows, self.device = values, rows, device
        self.shape = torch.Size((len(rows), values.shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        return torch.from_numpy(self.values[self.rows[index]]).to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield blocks [size, D], the last with what is left."""
        for i in range(0, len(self), size):
            yield self[i : i + size]


FeatureRows = Tensor | Stored


def read(values: Any, rows: Rows, device: torch.device) -> FeatureRows:
    """Return rows of the features of a file, as a tensor unless the file exceeds IN_MEMORY."""
    stored = Stored(values, rows, device)
    return stored if values.nbytes > IN_MEMORY else stored[:]


def joined(parts: list[FeatureRows]) -> FeatureRows:
    """Return the rows of parts of one file, one after the other."""
    if isinstance(parts[0], Stored):
        of_file = [part for part in parts if isinstance(part, Stored)]
        assert len(of_file) == len(parts), "rows of one file are all in memory or all in the file"
        rows = np.concatenate([part.rows for part in of_file])
        return Stored(parts[0].values, rows, parts[0].device)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def create(partial: Path, paths: list[str], width: int) -> None:
    """Make the two arrays of an unfinished extraction, unless they exist."""
    partial.mkdir(exist_ok=True)
    done_at, values_at = partial / "done.npy", partial / "features.npy"
    if done_at.exists():
        return
    (partial / "paths.txt").write_text(
        "\n".join(paths) + "\n", encoding="utf-8", errors="surrogateescape"
    )
    shape = (len(paths), width)
    np.lib.format.open_memmap(values_at, mode="w+", dtype=np.float32, shape=shape)
    _allocate(values_at)
    # Last: its presence says that both exist.
    with replacing(done_at) as temporary, open(temporary, "wb") as file:
        np.save(file, np.zeros(len(paths), dtype=np.uint8))


def _allocate(path: Path) -> None:
    """Allocate the file's blocks: a hole that meets a full disk later kills with SIGBUS."""
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


class Writer:
    """Rows of an array on disk, written where they belong."""

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        self._start, self._size = array.offset, array[:1].nbytes
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115  (until close)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, rows: Rows, values: Any) -> None:
        """Write values[i] into row rows[i]."""
        for row, value in zip(rows.tolist(), values, strict=True):
            os.pwrite(self._file.fileno(), value.tobytes(), self._start + row * self._size)

    def keep(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._file.fileno())
