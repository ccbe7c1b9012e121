"""The data sets by name, each from a folder on disk to lists of images, labels and splits.

issue: torchvision's class where it fits; here: readers of the same layouts, which tests hold equal
    to torchvision's;
because its classes give no list of paths, look only whether folders exist, and unpickle CIFAR
outright.
"""

from collections.abc import Callable
from pathlib import Path

from harl_bench.classify.datasets.cars import cars
from harl_bench.classify.datasets.cifar import cifar10, cifar100
from harl_bench.classify.datasets.dataset import DataSet
from harl_bench.classify.datasets.dtd import dtd
from harl_bench.classify.datasets.folder import folder
from harl_bench.classify.datasets.food101 import food101
from harl_bench.classify.datasets.imagenet import imagenet
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.datasets.sun397 import sun397

DATASETS: dict[str, Callable[[Path], DataSet]] = {
    "folder": folder,
    "food101": food101,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "sun397": sun397,
    "cars": cars,
    "dtd": dtd,
    "imagenet": imagenet,
}
__all__ = ["DATASETS", "PUBLISHED", "DataSet", "folder"]
