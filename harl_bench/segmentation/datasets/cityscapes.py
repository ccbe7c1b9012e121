"""Cityscapes from its original archives, nothing prepared (core/cityscapes.py).

The ids of `*_gtFine_labelIds.png` are mapped to the 19 classes here, so that cityscapesscripts'
createTrainIdLabelImgs is not needed.
"""

from pathlib import Path

from harl_bench.core.cityscapes import LABEL, LABELS, LARGEST, PUBLISHED, home, pairs
from harl_bench.segmentation.confusion import IGNORED
from harl_bench.segmentation.datasets.dataset import OUTSIDE, Item, Split, require_disjoint

CLASS_OF = {id_: k for k, (id_, _, _) in enumerate(LABELS)}
TABLE = tuple(
    CLASS_OF.get(value, IGNORED) if value <= LARGEST or value == IGNORED else OUTSIDE
    for value in range(256)
)


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


def _split(root: Path, base: Path, name: str) -> Split:
    items = tuple(Item(*paths) for paths in pairs(base, name, LABEL))
    names, colors = tuple(label[1] for label in LABELS), tuple(label[2] for label in LABELS)
    return Split(name, root, base, names, items, TABLE, colors, PUBLISHED[name])
