"""STL-10: `stl10_binary/{train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt}`."""

from pathlib import Path

import numpy as np

from harl_bench.classify.datasets.arrays import Batch, joined
from harl_bench.classify.datasets.dataset import DataSet, as_integers, home, lines
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.core.errors import DataError

SIDE = 96
BYTES = 3 * SIDE * SIDE


def stl10(root: Path) -> DataSet:
    """Read the 5,000 labelled training images, a tenth held out, and the 8,000 test images.

    Labels count from 1 in the files and from 0 here.

    Raises:
        DataError: a file is missing or cut short.
    """
    base = home("stl10", root, ("stl10_binary", "."), "train_X.bin")
    parts = [[_batch(base, split)] for split in ("train", "test")]
    return joined("stl10", base, lines(base / "class_names.txt"), parts, SIDE)


def _batch(base: Path, split: str) -> Batch:
    """Return the planes of a split, which the file holds column by column, and the labels."""
    place = PUBLISHED["stl10"].place
    for name in (f"{split}_X.bin", f"{split}_y.bin"):
        if not (base / name).is_file():
            raise missing("file not found", base, name, next=place)
    labels = as_integers(np.fromfile(base / f"{split}_y.bin", dtype=np.uint8)) - 1
    content = np.fromfile(base / f"{split}_X.bin", dtype=np.uint8)
    if len(content) != BYTES * len(labels):
        seen = f"{len(content):,} bytes for {len(labels):,} labels"
        raise DataError(f"{split}_X.bin is cut short", where=base, seen=seen, next=place)
    planes = content.reshape(-1, 3, SIDE, SIDE).transpose(0, 1, 3, 2)
    return planes.reshape(len(labels), BYTES), labels
