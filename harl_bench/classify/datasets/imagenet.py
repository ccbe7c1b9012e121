"""ImageNet (ILSVRC 2012): `train/<wnid>/*.JPEG` and, as the test split, `val/<wnid>/*.JPEG`.

torchvision's class needs the devkit's archive beside this layout for names that nothing here uses.
Labels are indices of the sorted wnids, not the devkit's ids.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, counted
from harl_bench.classify.datasets.folder import class_folders
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import per_class

HELD = 10  # images a class


def imagenet(root: Path, name: str = "imagenet") -> DataSet:
    """Read the two splits, with 10 training images a class to validate on.

    `imagenet100` has the same layout and a hundred of the classes.

    paper: the last 10,009 of the TFDS order (BYOL), its code the first 10,000; here: 10 a class,
    drawn by the seed; because neither list was published.

    Raises:
        DataError: a split is missing, lies flat in one folder, or the classes of the two differ.
    """
    base = root / name if (root / name / "train").is_dir() else root
    parts = {"train": "train", "test": "val"}
    data = class_folders(name, base, parts, partial(per_class, count=HELD))
    departures = counted(name, data.classes, data.splits)
    return replace(data, departures=departures, metric=PUBLISHED[name].metric)
