"""Folders of images: classes for classification, and unlabelled photos with their foreground
masks.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harl_bench.toydata.image import write_jpeg, write_mask
from harl_bench.toydata.scene import compose, size_px
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

WNIDS = ("n00000001", "n00000002", "n00000003")  # sub-folders, as ImageNet has them


def write_classes(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """`<split>/<class>/<number>.jpg`, `count` images per class and split, one object each."""
    for split, count in counts.items():
        for name in NAMES:
            for i in range(count):
                scene = compose(random, [name], size=size_px(random, side_px), radii=(0.2, 0.48))
                write_jpeg(root / split / name / f"{i:04d}.jpg", scene.image, random)


def write_photos(root: Path, count: int, *, side_px: int, random: Random) -> None:
    """`images/<wnid>/<number>.jpg` and `masks/<wnid>/<number>.png`: one or two large objects,
    foreground 255.
    """
    for i in range(count):
        names = [str(n) for n in random.choice(NAMES, int(random.integers(1, 3)))]
        scene = compose(random, names, size=size_px(random, side_px), radii=(0.22, 0.5))
        name = Path(WNIDS[i % len(WNIDS)]) / f"{i:06d}"
        write_jpeg(root / "images" / name.with_suffix(".jpg"), scene.image, random)
        foreground = np.logical_or.reduce([thing.visible for thing in scene.things])
        write_mask(root / "masks" / name.with_suffix(".png"), foreground)
