"""ImageNet (ILSVRC 2012): `train/<wnid>/*.JPEG`, `val/<wnid>/*.JPEG`; the official validation split
is the test split.

torchvision's class wants the devkit's archive beside this layout for names that nothing here uses.
Labels are the places of the sorted wnids, not the devkit's ids.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, counted
from harl_bench.classify.datasets.folder import class_folders
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import per_class

HELD = 10  # images a class


def imagenet(root: Path) -> DataSet:
    """The two splits, and 10 training images a class to validate on.

    paper: the last 10,009 of the TFDS order (BYOL), its code the first 10,000; here: 10 a class,
        drawn by the seed;
    because neither list was published.

    Raises:
        DataError: a split is missing, lies flat in one folder, or the classes of the two differ.
    """
    base = root / "imagenet" if (root / "imagenet" / "train").is_dir() else root
    found = class_folders(
        "imagenet", base, {"train": "train", "test": "val"}, partial(per_class, count=HELD)
    )
    departures = counted("imagenet", found.classes, found.splits)
    return replace(found, departures=departures, metric=PUBLISHED["imagenet"].metric)
