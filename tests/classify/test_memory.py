"""What the solver and the neighbors hold in memory at once, and features that stay in their file."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.classify import eigenbasis, knn, stored
from harl_bench.classify.linear import run
from tests.classify.command import CPU
from tests.classify.peaks import MALLOC, RESET

# In copies of the features; what each was before it worked in blocks.
LIMITS = {
    "basis": 1.5,  # 3.2
    "float64": 0.5,  # 6.2
    "linear": 2.5,  # with its refit, 5
    "neighbors": 2.5,  # of the bank, 3
}


@pytest.mark.skipif(not RESET.exists(), reason="Linux tells a process's peak")
def test_peaks_of_memory() -> None:
    command = [sys.executable, "-m", "tests.classify.peaks"]
    environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    assert ended.returncode == 0, ended.stderr
    peaks = json.loads(ended.stdout)
    assert peaks.keys() == LIMITS.keys()
    assert not {name: x for name, x in peaks.items() if x >= LIMITS[name]}


class TestRowsInTheirFile:
    """Features above a limit are read in blocks; what comes out is the same, bit for bit."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "FileStore":
        monkeypatch.setattr(eigenbasis, "ROWS", 512)
        monkeypatch.setattr(knn, "BANK", 512)
        return FileStore(tmp_path / "features.npy")

    def test_linear(
        self, store: "FileStore", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """lambda 1e-3 ends in float64, which reads the file again and frees the turned rows.

        Of the last limit, train exceeds it and val does not.
        """
        strengths, outcomes = [100.0, 1e-3], []
        for limit in (1 << 30, 0, 4 * 64 * 2000):
            monkeypatch.setattr(stored, "IN_MEMORY", limit)
            folder = tmp_path / str(limit)
            outcomes.append(
                run(store, 2, regularizations=strengths, eps=1e-5, device=CPU, folder=folder)  # type: ignore[arg-type]
            )
        for other in outcomes[1:]:
            np.testing.assert_array_equal(other.logits, outcomes[0].logits)
            assert other.selection == outcomes[0].selection
        lines = (tmp_path / "0" / "metrics.jsonl").read_text()
        assert '"precision": "float64"' in lines

    def test_neighbours(self, store: "FileStore", monkeypatch: pytest.MonkeyPatch) -> None:
        outcomes = []
        for limit in (1 << 30, 0, 4 * 64 * 2000):
            monkeypatch.setattr(stored, "IN_MEMORY", limit)
            outcomes.append(
                knn.run(store, 2, neighbours=[1, 9], temperature=0.07, headline=9, device=CPU)  # type: ignore[arg-type]
            )
        for name, other in product(("k1", "k9"), outcomes[1:]):
            np.testing.assert_array_equal(other.named[name], outcomes[0].named[name])


class FileStore:
    """Features of a file, as `features.Features` reads them."""

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(0)
        np.save(path, rng.random((6000, 64), dtype=np.float32))
        self.values, self.labels = np.load(path, mmap_mode="r"), rng.integers(2, size=6000)
        mixed = rng.permutation(6000)
        self.splits = {
            "train": np.sort(mixed[:4500]),
            "val": np.sort(mixed[4500:5200]),
            "test": np.sort(mixed[5200:]),
        }

    def read(self, split: str, device: torch.device) -> tuple[stored.FeatureRows, torch.Tensor]:
        rows = self.splits[split]
        return stored.read(self.values, rows, device), torch.from_numpy(self.labels[rows])
