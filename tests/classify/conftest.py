"""One thread: the problems are tiny, and threads that wait for each other cost more than they
bring.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from tests.classify.command import COLORS


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colors, 5 training and 3 test images each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for name, color in COLORS.items():
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(-25, 25, (36, 40, 3))
                Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(
                    path
                )
    return tmp_path / "set"


@pytest.fixture
def data_of_odd_sizes(tmp_path: Path) -> Path:
    """Three colors, 6 training and 4 test images each, of odd sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name, color in COLORS.items():
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(
                    -25, 25, (int(rng.integers(33, 50)), int(rng.integers(33, 50)), 3)
                )
                Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(
                    path
                )
    return tmp_path / "set"
