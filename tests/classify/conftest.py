"""One thread: the problems are tiny, and threads that wait for each other cost more than they
bring.
"""

from collections.abc import Callable, Iterator
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


Sides = Callable[[np.random.Generator], tuple[int, int]]


def draw(root: Path, counts: dict[str, int], sides: Sides) -> Path:
    """Draw three classes, each noise around its color, so many images of each in each split."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.array(color) + rng.integers(-25, 25, (*sides(rng), 3))
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colors, 5 training and 3 test images each."""
    return draw(tmp_path / "set", {"train": 5, "test": 3}, lambda _: (36, 40))


@pytest.fixture
def data_of_odd_sizes(tmp_path: Path) -> Path:
    """Three colors, 6 training and 4 test images each, of odd sizes."""

    def sides(rng: np.random.Generator) -> tuple[int, int]:
        return int(rng.integers(33, 50)), int(rng.integers(33, 50))

    return draw(tmp_path / "set", {"train": 6, "test": 4}, sides)
