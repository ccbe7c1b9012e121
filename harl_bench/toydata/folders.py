"""Folders of images: classes for classification, and unlabelled photos with their foreground masks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from harl_bench.toydata.scene import compose, some_names
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

WNIDS = ("n00000001", "n00000002", "n00000003")  # sub-folders, as ImageNet has them


def write_classes(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write `<split>/<class>/<number>.jpg`, `counts[split]` images of each class, one object each."""
    for split, count in counts.items():
        for name in NAMES:
            for i in range(count):
                scene = compose(random, [name], side_px, radii=(0.2, 0.48))
                scene.save(root / split / name / f"{i:04d}.jpg", random)


def write_photos(root: Path, count: int, *, side_px: int, random: Random) -> None:
    """Write `images/<wnid>/<number>.jpg` of one or two large objects, and `masks/<wnid>/<number>.png` of 0 and 255."""
    for i in range(count):
        scene = compose(random, some_names(random, 2), side_px, radii=(0.22, 0.5))
        wnid = WNIDS[i % len(WNIDS)]
        scene.save(root / "images" / wnid / f"{i:06d}.jpg", random)
        foreground = np.logical_or.reduce([thing.visible for thing in scene.things])
        (root / "masks" / wnid).mkdir(parents=True, exist_ok=True)
        Image.fromarray(foreground.astype(np.uint8) * 255).save(
            root / "masks" / wnid / f"{i:06d}.png"
        )
