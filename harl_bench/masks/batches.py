"""Masks by a network, in batches; threads read images ahead and finish the masks.

One process, because a GPU (and torch's own threads on a CPU) serves one best; decoding, resizing,
thresholding and writing release Python's lock, so threads suffice for them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.core.images import read_rgb

T = TypeVar("T")
Finish = Callable[[Path, tuple[int, int], NDArray[np.float32]], T]
AHEAD = 3  # batches being read, or finished, while one is computed


@dataclass(frozen=True)
class Prepared:
    """An image's size (height, width) and what the network takes of it."""

    relative: Path
    size: tuple[int, int]
    square: NDArray[np.uint8]


def results(
    method: Any, root: Path, remaining: Sequence[Path], workers: int, finish: Finish[T]
) -> Iterator[tuple[Path, T | str]]:
    """Yield each image below `root` with what `finish` makes of its path, size and saliency map.

    Where there is none, yield the reason.
    """
    maker: Any = method.maker()
    starts = range(0, len(remaining), method.batch)
    batches = [remaining[start : start + method.batch] for start in starts]
    with ThreadPoolExecutor(max(1, workers)) as pool:

        def read(names: Sequence[Path]) -> list[Future[Prepared | tuple[Path, str]]]:
            return [pool.submit(_read, root, name, maker) for name in names]

        reading = deque(read(names) for names in batches[:AHEAD])
        finishing: deque[list[Future[tuple[Path, T]]]] = deque()
        for upcoming in [*batches[AHEAD:], *([[]] * min(AHEAD, len(batches)))]:
            items = [future.result() for future in reading.popleft()]
            reading.append(read(upcoming))
            ready = [item for item in items if isinstance(item, Prepared)]
            maps = maker.many([item.square for item in ready]) if ready else []
            pairs = zip(ready, maps, strict=True)
            finishing.append([pool.submit(_finish, finish, item, map_) for item, map_ in pairs])
            yield from (item for item in items if not isinstance(item, Prepared))
            if len(finishing) > AHEAD:
                yield from (future.result() for future in finishing.popleft())
        yield from (future.result() for group in finishing for future in group)


def _read(root: Path, relative: Path, maker: Any) -> Prepared | tuple[Path, str]:
    try:
        rgb = np.asarray(read_rgb(root / relative))
    except DataError as error:
        return relative, str(error)
    return Prepared(relative, rgb.shape[:2], maker.prepare(rgb))


def _finish(finish: Finish[T], item: Prepared, saliency: NDArray[np.float32]) -> tuple[Path, T]:
    return item.relative, finish(item.relative, item.size, saliency)
