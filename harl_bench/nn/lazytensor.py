"""Tensors of a file that are known but not read: `load` reads their bytes."""

import io
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_AXES = 32
LARGE = 65_536  # bytes, from which on a claim is compared with what the file has
READS = 4_000_000  # of pickles in one file; three networks with their optimizer take 0.3 million


class DamagedError(Exception):
    """A file contradicts itself.

    `nn/checkpoint.py` turns the text into the line that a person reads.
    """


class CutShortError(DamagedError):
    """A file ends too early; `missing` bytes lack, exactly or at least, where that can be known."""

    def __init__(self, missing: int | None = None, *, exactly: bool = True) -> None:
        self.missing, self.exactly = missing, exactly
        super().__init__("the file ends too early")


class Reader:
    """A file, or bytes out of one, as a pickle is read: never past its end, and not for ever."""

    def __init__(self, source: Path | bytes, start: int = 0) -> None:
        self.source, self.reads = source, 0
        self.file: Any = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        self.end = self.file.seek(0, os.SEEK_END)
        self.file.seek(start)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def left(self) -> int:
        """Return the bytes from here to the end."""
        return max(self.end - int(self.file.tell()), 0)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; fewer only at the end."""
        self.reads += 1
        if self.reads > READS:
            raise DamagedError(f"its pickle takes more than {READS:,} steps")
        return bytes(self.file.read(size if size < LARGE else min(size, self.left())))

    def readline(self) -> bytes:
        """Return the rest of a line."""
        return bytes(self.file.readline())

    def skip(self, size: int) -> "Storage":
        """Pass over bytes, which stay in the file.

        Raises:
            CutShortError: the file has fewer.
        """
        if (missing := size - self.left()) > 0:
            raise CutShortError(missing, exactly=False)
        start = self.file.tell()
        self.file.seek(size, os.SEEK_CUR)
        return Storage(self.source, start, size)


@dataclass(eq=False)
class Storage:
    """A run of bytes in a file.

    Args:
        source: the file, or its bytes.
        start: of the first byte.
        size: in bytes.
        dtype: what a typed storage of torch holds.
        crc: its CRC-32 as the container states it; 0: not stated.
        swap: width in bytes of what a big-endian machine wrote; 0: nothing.
    """

    source: Path | bytes
    start: int
    size: int
    dtype: torch.dtype = torch.uint8
    crc: int = 0
    swap: int = 0
    loaded: Tensor | None = field(default=None, repr=False)

    def load(self) -> Tensor:
        """Return the bytes, [size] uint8; tensors that share them go on sharing.

        Raises:
            DamagedError: the checksum differs.
            CutShortError: the file has become shorter.
        """
        if self.loaded is None:
            flat = torch.empty(self.size, dtype=torch.uint8)
            buffer = flat.numpy().data
            with Reader(self.source, self.start) as reader:
                if (missing := self.size - reader.file.readinto(buffer)) > 0:
                    raise CutShortError(missing)
            if self.crc and zlib.crc32(buffer) != self.crc:
                raise DamagedError("the checksum of a tensor's bytes is wrong")
            if self.swap:
                flat.numpy().view(f"u{self.swap}").byteswap(inplace=True)
            self.loaded = flat
        return self.loaded


@dataclass(eq=False)
class LazyTensor:
    """A tensor that lies in a file; strides and offset count elements.

    Raises:
        DamagedError: numbers that are none, negative or absurd, or that reach beyond the storage.
    """

    storage: Storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.stride) <= MOST_AXES:
            raise DamagedError("a tensor of absurd size")
        if not all(type(n) is int and n >= 0 for n in (self.offset, *self.shape, *self.stride)):
            raise DamagedError("a tensor whose shape, stride or offset is no size")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        end = 0 if 0 in self.shape else self.offset + last + 1
        if end * self.dtype.itemsize > self.storage.size or math.prod(self.shape) >= 2**63:
            raise DamagedError("a tensor reaches beyond its storage")

    def load(self) -> Tensor:
        """Return the tensor, a view of its storage; errors as `Storage.load`."""
        flat = self.storage.load().view(self.dtype)
        return flat.as_strided(self.shape, self.stride, self.offset)


def load_all(value: Any, loaded: dict[int, Any] | None = None) -> Any:
    """Return the payload with every tensor read; dicts and lists are changed in place, once."""
    loaded = {} if loaded is None else loaded
    if isinstance(value, LazyTensor):
        return value.load()
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in loaded:
        loaded[id(value)] = value
        if isinstance(value, dict):
            value.update((key, load_all(item, loaded)) for key, item in list(value.items()))
        elif isinstance(value, list):
            value[:] = [load_all(item, loaded) for item in value]
        elif isinstance(value, tuple):
            loaded[id(value)] = tuple(load_all(item, loaded) for item in value)
    return loaded[id(value)]
