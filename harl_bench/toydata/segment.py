"""Layouts of semantic segmentation: VOC2012 with SegmentationClassAug and SBD, and Cityscapes."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from harl_bench.core.palette import voc_palette
from harl_bench.toydata import matlab
from harl_bench.toydata.scene import Thing, compose
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random
from harl_bench.toydata.voc import CLASSES, NAME_OF

VOC_CLASS = {name: 1 + CLASSES.split().index(NAME_OF[name]) for name in NAMES}
# traffic light, car, traffic sign, person, bicycle; the ground is road (cityscapesscripts' ids)
CITY_ID = dict(zip(NAMES, (19, 26, 20, 24, 33), strict=True))
THINGS = {24, 26, 33}  # those of them with instances
ROAD, OUT_OF_ROI = 7, 3
CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",)}
BORDER = 255  # around VOC's objects
RADII = (0.14, 0.42)
# Each shape has a hue of its own.
HUES = dict(
    zip(
        NAMES,
        ((230, 60, 40), (50, 90, 230), (40, 190, 70), (235, 200, 40), (190, 60, 210)),
        strict=True,
    )
)
TINT = 0.85  # how much of a thing's color is its hue
Labels = NDArray[np.uint8]


def write_voc(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write VOC2012 and SBD below `root`.

    Args:
        counts: images of VOC's own `train` and `val`, and of `extra`, which SBD alone labels. Their
            labels are in SegmentationClassAug, too, in plain gray.
    """
    base, sbd = root / "VOC2012", root / "SBD" / "dataset"
    lists: dict[str, list[str]] = {split: [] for split in counts}
    for folder in ("SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    labels: dict[str, Labels] = {}
    for split, count in counts.items():
        for _ in range(count):
            name = f"2008_{len(labels) + 1:06d}"
            path = base / "JPEGImages" / f"{name}.jpg"
            shapes = random.choice(NAMES, random.integers(1, 4))
            height, width, things = compose(path, shapes, side_px, random, RADII)
            _tint(path, things)
            labels[name] = _labels(height, width, things, VOC_CLASS, ground=0)
            lists[split].append(name)
            if split == "extra":
                Image.fromarray(labels[name]).save(base / "SegmentationClassAug" / f"{name}.png")
            else:
                image = Image.fromarray(_bordered(labels[name]))
                image.putpalette([value for color in voc_palette() for value in color])
                image.save(base / "SegmentationClass" / f"{name}.png")
    for split in ("train", "val"):
        _write_list(base / "ImageSets" / "Segmentation" / f"{split}.txt", lists[split])
    # As in the original, SBD has labels of its own for some of VOC's images.
    both = [*lists["extra"], *lists["train"][:2], *lists["val"][:2]]
    half = -(-len(both) // 2)
    for split, names in (("train", both[:half]), ("val", both[half:])):
        for name in names:
            _write_sbd(sbd / "cls" / f"{name}.mat", labels[name])
            (sbd / "img").mkdir(exist_ok=True)
            shutil.copyfile(base / "JPEGImages" / f"{name}.jpg", sbd / "img" / f"{name}.jpg")
        _write_list(sbd / f"{split}.txt", names)


def write_cityscapes(
    root: Path, counts: Mapping[str, int], *, side_px: int, random: Random
) -> None:
    """Write leftImg8bit and gtFine below `root` with so many images of train and val.

    In every fourth image the instances are groups, which have no number.
    """
    for split, count in counts.items():
        for k in range(count):
            city = CITIES[split][k % len(CITIES[split])]
            stem = f"{split}/{city}/{city}_{k:06d}_000019"
            path = root / "leftImg8bit" / f"{stem}_leftImg8bit.png"
            shapes = random.choice(NAMES, random.integers(1, 4))
            height, width, things = compose(path, shapes, side_px, random, RADII)
            _tint(path, things)
            ids = np.full((height, width), OUT_OF_ROI, np.uint8)
            inner = _labels(height, width, things, CITY_ID, ground=ROAD)
            ids[1:-1, 1:-1] = inner[1:-1, 1:-1]
            instances = _instances(ids, things, groups=k % 4 == 3)
            (root / "gtFine" / stem).parent.mkdir(parents=True, exist_ok=True)
            for name, values in (("labelIds", ids), ("instanceIds", instances)):
                Image.fromarray(values).save(root / "gtFine" / f"{stem}_gtFine_{name}.png")


def _tint(path: Path, things: list[Thing]) -> None:
    """Mix the hue of each shape into its pixels."""
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    for thing in things:
        hue = np.array(HUES[thing.name])
        pixels[thing.visible] += TINT * (hue - pixels[thing.visible])
    Image.fromarray(pixels.round().astype(np.uint8)).save(path, quality=92)


def _labels(
    height: int, width: int, things: list[Thing], table: Mapping[str, int], *, ground: int
) -> Labels:
    labels = np.full((height, width), ground, np.uint8)
    for thing in things:
        labels[thing.visible] = table[thing.name]
    return labels


def _instances(ids: Labels, things: list[Thing], *, groups: bool) -> NDArray[np.uint16]:
    """Return ids of labels with those of instances in them: 1000 x label + number, as published."""
    instances = ids.astype(np.uint16)
    for number, thing in enumerate(things):
        label = CITY_ID[thing.name]
        if label in THINGS and not groups:
            instances[thing.visible & (ids == label)] = 1000 * label + number
    return instances


def _bordered(labels: Labels) -> Labels:
    """Return labels with 255 where two classes meet."""
    edge = maximum_filter(labels, 3) != minimum_filter(labels, 3)
    return np.where(edge, np.uint8(BORDER), labels)


def _write_sbd(path: Path, labels: Labels) -> None:
    """Write GTcls as SBD does: Segmentation, and which of the 20 classes are present."""
    present = np.setdiff1d(labels, [0])
    matlab.write(path, {"GTcls": {"Segmentation": labels, "CategoriesPresent": present}})


def _write_list(path: Path, names: list[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names))
