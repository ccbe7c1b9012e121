"""Small images with a known foreground: one disc of another color on a noisy ground."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def disc(
    seed: int, height: int = 64, width: int = 80
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image [h, w, 3] and its foreground [h, w]: a saturated disc, about a sixth of it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.35, 0.65, 2) * (height, width)
    truth = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (0.24 * height) ** 2
    ground, color = (
        rng.integers(90, 160),
        np.array([[220, 40, 40], [40, 60, 220], [230, 200, 30]])[seed % 3],
    )
    image = np.where(truth[..., None], color, ground) + rng.normal(0, 6, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), truth


def write(root: Path, count: int, *, height: int = 64, width: int = 80) -> tuple[Path, Path]:
    """`count` images in two class folders and their masks: (images, masks)."""
    for i in range(count):
        image, truth = disc(i, height, width)
        name = Path("ab"[i % 2]) / f"{i:02d}"
        for folder, values, suffix in (
            ("images", image, ".jpg"),
            ("masks", truth.astype(np.uint8) * 255, ".png"),
        ):
            path = root / folder / name.with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    return root / "images", root / "masks"
