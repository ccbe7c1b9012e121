"""Many relative paths, without a Python object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

ENCODING = ("utf-8", "surrogateescape")


class Names(Sequence[Path]):
    """Many relative paths in two arrays: a list of a million would be copied into each data worker.

    Args:
        text: their bytes, one after the other.
        ends: [N] where each ends.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """From strings with "/"."""
        encoded = [name.encode(*ENCODING) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, i: int) -> str:
        """One path as a string with "/"."""
        start = int(self.ends[i - 1]) if i else 0
        return self.text[start : int(self.ends[i])].tobytes().decode(*ENCODING)

    def strings(self) -> list[str]:
        """All of them."""
        whole, start, names = self.text.tobytes(), 0, []
        for end in self.ends.tolist():
            names.append(whole[start:end].decode(*ENCODING))
            start = end
        return names

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> list[Path]: ...
    def __getitem__(self, i: int | slice) -> Path | list[Path]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return Path(self.name(i % len(self)))

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.strings())
