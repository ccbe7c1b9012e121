"""ellipse: the same centered ellipse in every image, a control for masks that look at the image."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harl_bench.core.config import Config


class Ellipse(Config):
    """Parameters of ellipse. `area`: its fraction of the image; it touches the sides at pi / 4."""

    area: float = Field(default=0.3, gt=0, le=math.pi / 4)

    def describe_engine(self) -> str:
        """Return what draws it; no image is looked at."""
        return "a centered ellipse"

    def maker(self) -> "Ellipse":
        """Return itself: there is nothing to load."""
        return self

    def __call__(self, rgb: NDArray[np.uint8], relative: Path) -> NDArray[np.float32]:
        """Return [H, W], 1 inside, of an image [H, W, 3]; the axes are in the sides' ratio."""
        y, x = ((2 * np.arange(side) + 1) / side - 1 for side in rgb.shape[:2])
        inside: NDArray[np.bool_] = x**2 + y[:, None] ** 2 <= 4 * self.area / math.pi
        return inside.astype(np.float32)
