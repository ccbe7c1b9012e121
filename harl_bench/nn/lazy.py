"""Tensors of a file that are known but not read: name, shape and dtype cost nothing, `load` reads
the bytes.
"""

import io
import math
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_AXES = 32
INT64 = 2**63
LINE = 65_536  # bytes of one text argument of pickle protocol 0


class DamagedError(Exception):
    """A file contradicts itself; the text says where.

    `nn/checkpoint.py` turns it into the line that a person reads.
    """


class CutShortError(DamagedError):
    """A file ends too early.

    Args:
        missing: how many bytes, where that can be known.
        exactly: whether it is that number, or at least that number.
    """

    def __init__(self, missing: int | None = None, *, exactly: bool = True) -> None:
        self.missing, self.exactly = missing, exactly
        super().__init__("the file ends too early")


class Window(io.RawIOBase):
    """A part of a file that reads like a file, never past its end, and never makes room for what is
    not there.
    """

    def __init__(self, source: Path | bytes, start: int = 0, size: int | None = None) -> None:
        self.source = source
        if start < 0:
            raise DamagedError("something that lies before the file's beginning")
        self.file = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115 - see close
        self.end = start + size if size is not None else self.file.seek(0, os.SEEK_END)
        self.file.seek(start)

    def left(self) -> int:
        """Bytes from here to the end."""
        return max(self.end - self.file.tell(), 0)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        left = self.left()
        return self.file.read(left if size < 0 else min(size, left))

    def readline(self, size: int | None = -1) -> bytes:
        """One line of at most LINE bytes."""
        return self.file.readline(min(self.left(), LINE))

    def skip(self, size: int) -> int:
        """Pass over bytes; the place in the file where they begin."""
        start = self.file.tell()
        if size > self.left():
            raise CutShortError(size - self.left(), exactly=False)
        self.file.seek(size, os.SEEK_CUR)
        return start

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


@dataclass(eq=False)
class Storage:
    """A run of bytes in a file.

    Args:
        source: the file, or its bytes.
        start: of the first byte.
        size: in bytes.
        crc: its CRC-32 as the container states it; 0: not stated.
        swap: width in bytes of what must be reversed (a file of a big-endian machine); 0: nothing.
        utf8: the bytes are Latin-1 text in UTF-8, as pickle protocol 2 spells them; `size` counts
            the UTF-8.
        dtype: what a typed storage of torch holds.
        whole: the storage it is a part of, and where in it, in bytes; `start` says nothing then.
    """

    source: Path | bytes
    start: int
    size: int
    crc: int = 0
    swap: int = 0
    utf8: bool = False
    dtype: torch.dtype = torch.uint8
    whole: "tuple[Storage, int] | None" = None
    loaded: Tensor | None = field(default=None, repr=False)

    def load(self) -> Tensor:
        """The bytes, [size] uint8; read once and kept, so that tensors which share them go on
        sharing.

        Raises:
            DamagedError: the checksum differs.
            CutShortError: the file has become shorter.
        """
        if self.loaded is not None:
            return self.loaded
        if self.whole:
            root, first = self.whole
            return root.load()[first : first + self.size]
        found = torch.empty(self.size, dtype=torch.uint8)
        buffer = found.numpy().data
        with Window(self.source, self.start) as file:
            done = 0
            while done < self.size:  # a read may return less than was asked for
                if not (count := file.file.readinto(buffer[done:])):
                    raise CutShortError(self.size - done)
                done += count
        if self.crc and zlib.crc32(buffer) != self.crc:
            raise DamagedError("the checksum of a tensor's bytes is wrong")
        if self.utf8:
            found = _latin1(buffer)
        if self.swap:
            found.numpy()[: len(found) // self.swap * self.swap].view(f"u{self.swap}").byteswap(
                inplace=True
            )
        self.loaded = found
        return found


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """A tensor that lies in a file: dtype, shape, and in which storage; strides and offset count
    elements.
    """

    storage: Storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def load(self) -> Tensor:
        """The tensor, a view of its storage.

        Raises:
            DamagedError: as `Storage.load`.
        """
        flat = self.storage.load()
        whole = flat[: len(flat) // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)
        if _end(self.shape, self.stride, self.offset) > len(whole):
            raise DamagedError("a tensor reaches beyond its storage")
        return whole.as_strided(self.shape, self.stride, self.offset)


def view(storage: Storage, dtype: torch.dtype, offset: Any, shape: Any, stride: Any) -> LazyTensor:
    """A tensor that lies within its storage.

    Raises:
        DamagedError: numbers that are none, negative or absurd, or that reach beyond the storage.
    """
    if len(shape) > MOST_AXES or len(stride) > MOST_AXES:
        raise DamagedError("a tensor of absurd size")
    numbers = [offset, *shape, *stride]
    if not all(isinstance(n, int) and 0 <= n < INT64 for n in numbers) or len(shape) != len(stride):
        raise DamagedError("a tensor whose shape, stride or offset is no size")
    if math.prod(shape) >= INT64:
        raise DamagedError("a tensor of absurd size")
    if not storage.utf8 and _end(shape, stride, offset) * dtype.itemsize > storage.size:
        raise DamagedError("a tensor reaches beyond its storage")
    return LazyTensor(storage, dtype, tuple(shape), tuple(stride), offset)


def contiguous_stride(shape: tuple[int, ...], *, fortran: bool = False) -> tuple[int, ...]:
    """Strides in elements; `fortran`: the first axis runs fastest."""
    if len(shape) > MOST_AXES:
        raise DamagedError("a tensor of absurd size")
    order = shape if fortran else shape[::-1]
    strides = [math.prod(order[:axis]) for axis in range(len(order))]
    return tuple(strides if fortran else strides[::-1])


def check_total(storages: Iterable[Storage], size: int) -> None:
    """
    Raises:
        DamagedError: storages that overlap: read, they would be more than the file's `size` bytes.
    """
    if sum(stored.size for stored in storages) > size:
        raise DamagedError("its tensors claim more bytes than the file has")


def load_all(value: Any) -> Any:
    """The payload with every tensor read; containers are changed in place and visited once."""
    if isinstance(value, LazyTensor):
        return value.load()
    seen: set[int] = set()
    turned: dict[int, Any] = {}  # tuples cannot be filled in place; each is looked through once
    holders: list[Any] = [value] if isinstance(value, dict | list) else []
    while holders:
        holder = holders.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for place, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, tuple):
                if id(item) not in turned:
                    turned[id(item)] = (
                        list(item) if any(isinstance(p, LazyTensor | tuple) for p in item) else item
                    )
                if turned[id(item)] is not item:
                    item = holder[place] = turned[id(item)]
            if isinstance(item, LazyTensor):
                holder[place] = item.load()
            elif isinstance(item, dict | list | tuple):
                holders.append(item)
    return value


def _latin1(text: memoryview) -> Tensor:
    try:
        return torch.from_numpy(
            np.frombuffer(bytes(text).decode().encode("latin1"), np.uint8).copy()
        )
    except UnicodeError:
        raise DamagedError("an array spelled as text that is not Latin-1") from None


def _end(shape: Any, stride: Any, offset: int) -> int:
    """One past the last element that is used."""
    return (
        0
        if 0 in shape
        else offset + 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    )
