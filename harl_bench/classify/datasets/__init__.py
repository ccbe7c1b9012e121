"""The data sets by name, each from a folder on disk to lists of images, labels and splits.

torchvision's classes give no list of paths, check only that folders exist, and unpickle CIFAR
outright. These readers of the same layouts do not, and tests compare them with torchvision's.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.aircraft import aircraft
from harl_bench.classify.datasets.birdsnap import birdsnap
from harl_bench.classify.datasets.caltech101 import caltech101
from harl_bench.classify.datasets.cars import cars
from harl_bench.classify.datasets.cifar import cifar10, cifar100
from harl_bench.classify.datasets.dataset import DataSet
from harl_bench.classify.datasets.dtd import dtd
from harl_bench.classify.datasets.flowers import flowers
from harl_bench.classify.datasets.folder import folder
from harl_bench.classify.datasets.food101 import food101
from harl_bench.classify.datasets.imagenet import imagenet
from harl_bench.classify.datasets.inaturalist2018 import inaturalist2018
from harl_bench.classify.datasets.pets import pets
from harl_bench.classify.datasets.places365 import places365
from harl_bench.classify.datasets.published import PUBLISHED, published
from harl_bench.classify.datasets.stl10 import stl10
from harl_bench.classify.datasets.sun397 import sun397
from harl_bench.classify.datasets.voc2007 import voc2007
from harl_bench.core.lookup import lookup
from harl_bench.core.nearby import data_root, within

DATASETS: dict[str, Callable[[Path], DataSet]] = {
    "folder": folder,
    "food101": food101,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "sun397": sun397,
    "cars": cars,
    "dtd": dtd,
    "birdsnap": birdsnap,
    "aircraft": aircraft,
    "voc2007-cls": voc2007,
    "pets": pets,
    "caltech101": caltech101,
    "flowers": flowers,
    "stl10": stl10,
    "places365": places365,
    "inaturalist2018": inaturalist2018,
    "imagenet": imagenet,
    "imagenet100": partial(imagenet, name="imagenet100"),
}
__all__ = ["DATASETS", "PUBLISHED", "DataSet", "folder", "read"]


def read(name: str, data: Path | None) -> DataSet:
    """Return a data set from the folder of --data, or from the set's own place in it.

    Args:
        data: None: $DETECTRON2_DATASETS, as for `voc` and `coco`.

    Raises:
        DataError: no such folder, or something is missing in it.
        UsageError: there is no data set of this name.
    """
    reader, root = lookup(DATASETS, name, "data set"), data_root(data)
    if name == "folder":
        parts = ("train", "test")
        return reader(within(root, name, lambda at: all((at / part).is_dir() for part in parts)))
    marker = published(name).marker
    kind = "published"
    if name == "voc2007-cls":
        kind, marker = "voc", (*marker, f"VOCdevkit/{marker[0]}")  # as the archive unpacks it
    return reader(within(root, kind, lambda at: any((at / path).exists() for path in marker)))
