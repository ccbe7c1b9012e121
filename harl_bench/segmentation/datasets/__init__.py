"""The data sets of recipes: name -> (training split, test split)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from harl_bench.core import cityscapes as cityscapes_layout
from harl_bench.core.lookup import lookup
from harl_bench.core.nearby import data_root, within
from harl_bench.segmentation.datasets import cityscapes, voc
from harl_bench.segmentation.datasets.dataset import Item, Split, contents_of, fingerprints

__all__ = ["DATASETS", "Item", "Split", "contents_of", "fingerprints", "read"]

DATASETS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "voc12aug": partial(voc.read, augmented=True),
    "voc12": partial(voc.read, augmented=False),
    "cityscapes": cityscapes.read,
}


def read(name: str, data: Path | None) -> tuple[Split, Split]:
    """Return the training and the test split of a data set.

    Args:
        data: the folder given by --data; None: $DETECTRON2_DATASETS, as for `voc` and `coco`.

    Raises:
        DataError: no such folder, or something is missing in it.
    """
    reader, root = lookup(DATASETS, name, "data set"), data_root(data)
    if name == "cityscapes":
        return reader(within(root, "cityscapes", cityscapes_layout.holds))
    return reader(within(root, "segment", voc.holds))
