"""The data sets of recipes: name -> (training split, test split)."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.lookup import lookup
from harl_bench.core.nearby import no_data_folder
from harl_bench.segmentation.datasets import cityscapes, voc
from harl_bench.segmentation.datasets.dataset import Item, Split, fingerprint

__all__ = ["DATASETS", "Item", "Split", "fingerprint", "read"]

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
    named = data if data is not None else os.environ.get("DETECTRON2_DATASETS")
    if named is None:
        raise DataError("no data folder", next="give --data DIR or set DETECTRON2_DATASETS")
    root = Path(named).expanduser()
    if not root.is_dir():
        source = "--data" if data is not None else "$DETECTRON2_DATASETS"
        raise no_data_folder(root, f"from {source}")
    return lookup(DATASETS, name, "data set")(root)
