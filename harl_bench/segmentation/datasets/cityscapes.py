"""Cityscapes from leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, nothing prepared.

The ids of `*_gtFine_labelIds.png` are mapped to the 19 classes here, so that cityscapesscripts'
createTrainIdLabelImgs is not needed.
"""

import os
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import DataError
from harl_bench.segmentation.confusion import IGNORED
from harl_bench.segmentation.datasets.dataset import OUTSIDE, Item, Split, require_disjoint

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
CLASS_OF = {id_: k for k, (id_, _, _) in enumerate(LABELS)}
TABLE = tuple(
    CLASS_OF.get(value, IGNORED) if value <= LARGEST or value == IGNORED else OUTSIDE
    for value in range(256)
)
PUBLISHED = {"train": 2_975, "val": 500}
IMAGES, TRUTH = "leftImg8bit", "gtFine"
IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
ARCHIVES = {IMAGES: "leftImg8bit_trainvaltest.zip", TRUTH: "gtFine_trainvaltest.zip"}


def read(root: Path) -> tuple[Split, Split]:
    """Return (train, val).

    Args:
        root: holds leftImg8bit/ and gtFine/, or cityscapes/ that does.

    Raises:
        DataError: a folder, image or label is missing, or train and val share an image.
    """
    base = home(root)
    train, val = (_split(root, base, name) for name in ("train", "val"))
    require_disjoint(train, val)
    return train, val


def home(root: Path) -> Path:
    """Return the folder of leftImg8bit and gtFine.

    Raises:
        DataError: there is none.
    """
    for folder in (root / "cityscapes", root):
        if any((folder / name).is_dir() for name in ARCHIVES):
            return folder
    near = next(iter([*root.glob(f"*/{IMAGES}"), *root.glob(f"*/*/{IMAGES}")]), None)
    hint = f"unpack {' and '.join(ARCHIVES.values())} there"
    if near:
        hint = f"--data {quote(str(near.parent))}"
    names = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "an empty folder"
    raise DataError("Cityscapes is missing", where=root, seen=names, next=hint)


def _split(root: Path, base: Path, name: str) -> Split:
    images, labels = (
        _keys(base / folder / name, suffix, ARCHIVES[folder])
        for folder, suffix in ((IMAGES, IMAGE), (TRUTH, LABEL))
    )
    for kind, here, there, folder in (
        ("label", images, labels, TRUTH),
        ("image", labels, images, IMAGES),
    ):
        if absent := sorted(here - there):
            other, suffix = ("images", LABEL) if kind == "label" else ("labels", IMAGE)
            raise DataError(
                f"{len(absent):,} of {len(here):,} {other} of {name} have no {kind}",
                where=base / folder / name / f"{absent[0]}{suffix}",
                next=f"unpack {ARCHIVES[folder]} completely",
            )
    items = tuple(
        Item(
            str(base / IMAGES / name / f"{key}{IMAGE}"), str(base / TRUTH / name / f"{key}{LABEL}")
        )
        for key in sorted(images)
    )
    names, colors = tuple(label[1] for label in LABELS), tuple(label[2] for label in LABELS)
    return Split(name, root, names, items, TABLE, colors, PUBLISHED[name])


def _keys(folder: Path, suffix: str, archive: str) -> set[str]:
    """Return {"city/city_000000_000019", ...}: the files of a split without their suffix."""
    keys = {
        f"{city.name}/{file.removesuffix(suffix)}"
        for city in sorted(folder.iterdir() if folder.is_dir() else ())
        if city.is_dir()
        for file in os.listdir(city)
        if file.endswith(suffix)
    }
    if not keys:
        seen = "no such folder" if not folder.is_dir() else f"no *{suffix}"
        raise DataError(
            "a half of Cityscapes is missing", where=folder, seen=seen, next=f"unpack {archive}"
        )
    return keys
