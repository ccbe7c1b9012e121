"""Writing images and masks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harl_bench.toydata.texture import Random


def write_jpeg(path: Path, image: NDArray[np.uint8], random: Random) -> None:
    """Save `[H, W, 3]` with a quality such as cameras and web sites use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=int(random.integers(72, 96)))


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Save `[H, W]` as 8-bit PNG of 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)
