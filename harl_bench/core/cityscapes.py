"""Cityscapes from its original archives: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.

Semantic and instance segmentation read the same folders and the same table of ids.
"""

import os
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import DataError

# id, name and color of the 19 classes, in their order (cityscapesscripts, helpers/labels.py)
LABELS = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
LARGEST = 33  # id of a label; the others up to it are not evaluated
# The eight classes with instances begin at "person".
THINGS = {id_: name for id_, name, _ in LABELS if id_ >= 24}
PUBLISHED = {"train": 2_975, "val": 500}
IMAGES, TRUTH = "leftImg8bit", "gtFine"
IMAGE, LABEL, INSTANCES = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"
HOMES = ("cityscapes", "")  # of both halves, in the folder of the data
ARCHIVES = {IMAGES: "leftImg8bit_trainvaltest.zip", TRUTH: "gtFine_trainvaltest.zip"}


def holds(folder: Path) -> bool:
    """Return whether leftImg8bit or gtFine lies in a folder, or in cityscapes/ in it."""
    return any((folder / home / name).is_dir() for home in HOMES for name in ARCHIVES)


def home(root: Path) -> Path:
    """Return the folder of leftImg8bit and gtFine, `root` or cityscapes/ in it.

    Raises:
        DataError: there is none.
    """
    for folder in (root / name for name in HOMES):
        if any((folder / name).is_dir() for name in ARCHIVES):
            return folder
    near = next(iter([*root.glob(f"*/{IMAGES}"), *root.glob(f"*/*/{IMAGES}")]), None)
    archives = " and ".join(ARCHIVES.values())
    hint = f"unpack {archives}: Cityscapes lies in {root / HOMES[0]}"
    if near:
        hint = f"--data {quote(str(near.parent))}"
    names = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "an empty folder"
    raise DataError("Cityscapes is missing", where=root, seen=names, next=hint)


def pairs(base: Path, split: str, label: str) -> list[tuple[str, str]]:
    """Return the paths of a split's images and of their labels, sorted.

    Args:
        base: see `home`.
        label: how the names of the labels end, LABEL or INSTANCES.

    Raises:
        DataError: a half is missing, or an image or label without its other half.
    """
    images, labels = (
        _keys(base / folder / split, suffix, ARCHIVES[folder])
        for folder, suffix in ((IMAGES, IMAGE), (TRUTH, label))
    )
    for kind, here, there, folder in (
        ("label", images, labels, TRUTH),
        ("image", labels, images, IMAGES),
    ):
        if absent := sorted(here - there):
            other, suffix = ("images", label) if kind == "label" else ("labels", IMAGE)
            raise DataError(
                f"{len(absent):,} of {len(here):,} {other} of {split} have no {kind}",
                where=base / folder / split / f"{absent[0]}{suffix}",
                next=f"unpack {ARCHIVES[folder]} completely",
            )
    image_of, label_of = base / IMAGES / split, base / TRUTH / split
    return [
        (str(image_of / f"{key}{IMAGE}"), str(label_of / f"{key}{label}")) for key in sorted(images)
    ]


def _keys(folder: Path, suffix: str, archive: str) -> set[str]:
    """Return {"city/city_000000_000019", ...}: a split's visible files without their suffix."""
    keys = {
        f"{city.name}/{file.removesuffix(suffix)}"
        for city in sorted(folder.iterdir() if folder.is_dir() else ())
        if city.is_dir()
        for file in os.listdir(city)
        if file.endswith(suffix) and not file.startswith(".")
    }
    if not keys:
        seen = "no such folder" if not folder.is_dir() else f"no *{suffix}"
        raise DataError(
            "a half of Cityscapes is missing", where=folder, seen=seen, next=f"unpack {archive}"
        )
    return keys
