"""What the solver and the neighbours hold in memory at once, measured by the peak of the
process.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harl_bench.classify import knn, solver
from harl_bench.classify.linear import run
from tests.classify.command import CPU

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not RESET.exists(), reason="Linux tells a process's peak")


def status(name: str) -> int:
    """Bytes."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def peak(work: Callable[[], object]) -> int:
    """Bytes that `work` holds at most beyond what was there before."""
    before = status("VmRSS")
    RESET.write_text("5")  # the peak begins anew
    work()
    return status("VmHWM") - before


N, D = 24_000, 256
SIZE = 4 * N * D  # bytes of the features


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a million rows have in blocks of 8,192; and the libraries' own rooms, taken before
    anything is measured.
    """
    monkeypatch.setattr(solver, "ROWS", 512)
    monkeypatch.setattr(knn, "BANK", 512)
    solver.prepare(torch.rand(2000, D))


@pytest.fixture
def features(small_blocks: None) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [N, D] that no hyperplane separates, and labels of two classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(N, D, generator=generator), torch.randint(2, (N,), generator=generator)


def test_the_basis_is_one_copy_of_the_features(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert peak(lambda: solver.prepare(features[0])) < 1.5 * SIZE  # it was 3.2 of them


def test_float64_needs_no_copy(features: tuple[torch.Tensor, torch.Tensor]) -> None:
    basis = solver.prepare(features[0])
    ended: list[solver.Optimum] = []

    def solve() -> None:
        ended.extend(solver.solve(basis, features[1], [1e-3], classes=2, eps=1e-5))

    assert peak(solve) < 0.5 * SIZE  # it was 6.2 of them
    assert ended[0].precision == "float64"
    assert ended[0].certificate <= 1e-5


class Store:
    """Features that are made when they are read, as those of a file."""

    def __init__(self) -> None:
        self.splits = {"train": range(N - 500), "val": range(N - 500, N), "test": range(500)}

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(self.splits[split])
        generator = torch.Generator().manual_seed(0)
        return torch.rand(rows, D, generator=generator), torch.arange(rows) % 2


def test_linear_holds_two_copies_with_its_refit(small_blocks: None, tmp_path: Path) -> None:
    def linear() -> None:
        run(Store(), 2, strengths=[100.0], eps=2e-3, device=CPU, folder=tmp_path)  # type: ignore[arg-type]

    assert peak(linear) < 2.5 * SIZE  # it was 5


def test_neighbours_hold_two_copies_of_the_bank(small_blocks: None) -> None:
    def neighbours() -> None:
        knn.run(Store(), 2, neighbours=[5], temperature=0.07, headline=5, device=CPU)  # type: ignore[arg-type]

    assert peak(neighbours) < 2.5 * SIZE  # it was 3
