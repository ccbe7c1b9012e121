"""Folders of images: classes for classification, and photos with their foreground masks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from harl_bench.toydata.scene import compose
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

# Of the one object, so large that few pixels show what it is. On a gray ground its hue tells it
# whatever light, pattern and ground are: what views by crops and colors keep, and random weights
# mix.
RADII = (0.5, 0.8)
WNIDS = ("n00000001", "n00000002", "n00000003")  # sub-folders, as ImageNet has them


def write_classes(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write `<split>/<class>/<number>.jpg`, `counts[split]` images of one object in each class."""
    for split, count in counts.items():
        for name in NAMES:
            for i in range(count):
                path = root / split / name / f"{i:04d}.jpg"
                compose(path, [name], side_px, random, radii=RADII, gray=True)


def write_photos(root: Path, count: int, *, side_px: int, random: Random) -> None:
    """Write `images/<wnid>/<number>.jpg` of one object and `masks/<wnid>/<number>.png`."""
    for i in range(count):
        wnid = WNIDS[i % len(WNIDS)]
        path = root / "images" / wnid / f"{i:06d}.jpg"
        _, _, things = compose(
            path, [random.choice(NAMES)], side_px, random, radii=RADII, gray=True
        )
        foreground = np.logical_or.reduce([thing.visible for thing in things])
        (root / "masks" / wnid).mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(foreground.astype(np.uint8) * 255)
        mask.save(root / "masks" / wnid / f"{i:06d}.png")
