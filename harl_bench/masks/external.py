"""external: saliency images of another program, one per image, at the same relative path."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.config import Config
from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.images import find_images, read_rgb
from harl_bench.core.masks import mask_of, masks_by_stem

ASPECT = 0.02  # relative difference of aspect ratio that rounding a small map's sides explains


class External(Config):
    """Parameters of external.

    `maps`: folder of grey images of any size and format, white is foreground.
    """

    maps: Path | None = None

    def describe_engine(self) -> str:
        """Return "given maps": nothing is computed here.

        Raises:
            UsageError: no folder was given.
        """
        if self.maps is None:
            raise UsageError(
                "external needs saliency images",
                where="--maps",
                next="give the folder that holds them",
            )
        return "given maps"

    def maker(self) -> "ExternalMaker":
        """List the folder.

        Raises:
            DataError: the folder is missing or holds no image.
        """
        self.describe_engine()
        assert self.maps is not None, "describe_engine has refused it"
        return ExternalMaker(self.maps)


class ExternalMaker:
    """A maker that reads the map x of any suffix, or x_mask.png, for the image x."""

    def __init__(self, maps: Path) -> None:
        self._maps = maps
        self._by_stem = masks_by_stem(path.as_posix() for path in find_images(maps))

    def __call__(self, rgb: NDArray[np.uint8], relative: Path) -> NDArray[np.float32]:
        """Return saliency [h, w] in 0..1, scaled from 0..255 if a value exceeds 1.

        Raises:
            DataError: no map for this image, unreadable, or of another shape.
        """
        name = mask_of(self._by_stem, relative.as_posix())
        if name is None:
            hint = "make it, or remove the image"
            raise DataError("no map for this image", where=self._maps, seen=relative, next=hint)
        saliency = np.asarray(read_rgb(self._maps / name).convert("L"), np.float32)
        (h, w), (height, width) = saliency.shape, rgb.shape[:2]
        if abs(w * height / (h * width) - 1) > ASPECT + 1 / min(h, w):
            raise DataError(
                "map and image differ in shape",
                where=self._maps / name,
                seen=f"map {w} x {h}, image {width} x {height}",
                next="make the map from this image, upright",
            )
        return saliency if saliency.max() <= 1 else np.asarray(saliency / 255, np.float32)
