"""Prints what the solver and the neighbors hold in memory at once, in copies of the features.

A process of its own for test_memory.py: the heap of a test worker has gaps, and what fills them
would be counted. Its malloc gives freed blocks back at once (`MALLOC`).
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from harl_bench.classify import eigenbasis, knn, solver
from harl_bench.classify.linear import run
from tests.classify.command import CPU

# glibc's mallopt(3), read when a process starts.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 16),
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_ARENA_MAX_": "1",
}
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
N, D = 24_000, 256
SIZE = 4 * N * D  # bytes of the features


def status(name: str) -> int:
    """Return bytes of this process."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def peak(work: Callable[[], object]) -> float:
    """Return what `work` holds at most beyond what was there before, in copies of the features.

    Pages of the libraries' files do not count: the machine takes them back and reads them again.
    """
    before, files = status("VmRSS"), status("RssFile")
    RESET.write_text("5")  # the peak begins anew
    work()
    return (status("VmHWM") - before - max(0, status("RssFile") - files)) / SIZE


class Store:
    """Features that are made when they are read, as those of a file."""

    def __init__(self) -> None:
        self.splits = {"train": range(N - 500), "val": range(N - 500, N), "test": range(500)}

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(self.splits[split])
        generator = torch.Generator().manual_seed(0)
        return torch.rand(rows, D, generator=generator), torch.arange(rows) % 2


def basis(features: torch.Tensor) -> float:
    return peak(lambda: eigenbasis.prepare(features))


def float64(features: torch.Tensor, labels: torch.Tensor) -> float:
    prepared, ended = eigenbasis.prepare(features), list[solver.Optimum]()
    copies = peak(lambda: ended.extend(solver.solve(prepared, labels, [1e-3], classes=2, eps=1e-5)))
    assert ended[0].precision == "float64"
    assert ended[0].certificate <= 1e-5
    return copies


def linear(folder: Path) -> float:
    settings = {"regularizations": [100.0], "eps": 2e-3, "device": CPU, "folder": folder}
    return peak(lambda: run(Store(), 2, **settings))  # type: ignore[arg-type]


def neighbors() -> float:
    settings = {"neighbours": [5], "temperature": 0.07, "headline": 5, "device": CPU}
    return peak(lambda: knn.run(Store(), 2, **settings))  # type: ignore[arg-type]


def main() -> None:
    # What a million rows have in blocks of 8,192.
    eigenbasis.ROWS = knn.BANK = 512
    eigenbasis.prepare(torch.rand(2000, D))  # the libraries take their own rooms
    # Features that no hyperplane separates.
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(N, D, generator=generator)
    labels = torch.randint(2, (N,), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        peaks = {
            "basis": basis(features),
            "float64": float64(features, labels),
            "linear": linear(Path(folder)),
            "neighbors": neighbors(),
        }
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
