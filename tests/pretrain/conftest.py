"""Images with masks on disk, small enough for a ResNet-18 on one core."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_images(root: Path, count: int, *, side: int = 48, seed: int = 0) -> tuple[Path, Path]:
    """`count` noisy images with a bright square each, and its mask; odd sizes, two folders."""
    rng = np.random.default_rng(seed)
    images, masks = root / "images", root / "masks"
    for i in range(count):
        height, width = side + int(rng.integers(0, 17)), side + int(rng.integers(0, 17))
        image = rng.integers(0, 90, (height, width, 3))
        mask = np.zeros((height, width), np.uint8)
        top, left = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
        mask[top : top + side // 2, left : left + side // 2] = 255
        image[mask > 0] += rng.integers(60, 160, 3)
        name = Path(f"n{i % 2}") / f"p{i:03d}"
        for folder, array, suffix in (
            (images, image.astype(np.uint8), ".png"),
            (masks, mask, ".png"),
        ):
            path = (folder / name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return images, masks


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve images and their masks."""
    return write_images(tmp_path, 12)
