"""PASCAL VOC 2007, whole images: `VOC2007/{ImageSets/Main/<class>_<split>.txt, JPEGImages/}`.

An image shows several classes, so that its label is a vector.
"""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, fields, home, listed
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import stratified
from harl_bench.core.errors import DataError

SET, MAIN = "voc2007-cls", "ImageSets/Main"
NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
CLASSES = NAMES.split()
FLAGS = {"1": 1, "0": -1, "-1": 0}  # of the files, as labels


def voc2007(root: Path) -> DataSet:
    """Read the official train, val and test.

    `labels` is [N, 20] int64, a column for each of `CLASSES` in alphabetical order: 1 where the
    class is present, 0 where it is absent, -1 where all its objects are marked difficult. The files
    say 1, -1 and 0. A difficult label is neither learnt from nor scored.

    Raises:
        DataError: a list or a listed image is missing, a line is no image with its flag, or the
            lists of a split name different images.
    """
    base = home(SET, root, ("VOCdevkit/VOC2007", "VOC2007", "."), f"{MAIN}/{CLASSES[0]}_test.txt")
    images = []
    for split in ("train", "val", "test"):
        flags = [_flags(base / MAIN / f"{name}_{split}.txt") for name in CLASSES]
        for name, others in zip(CLASSES, flags, strict=True):
            if others.keys() != flags[0].keys():
                where, odd = base / MAIN, min(others.keys() ^ flags[0].keys())
                what = f"{name}_{split}.txt and {CLASSES[0]}_{split}.txt list different images"
                raise DataError(what, where=where, seen=odd, next=PUBLISHED[SET].place)
        images += [
            (f"JPEGImages/{image}.jpg", tuple(column[image] for column in flags), split)
            for image in flags[0]
        ]
    # Not drawn from: the validation split is official.
    return listed(SET, base, CLASSES, images, partial(stratified, fraction=0.5))


def _flags(path: Path) -> dict[str, int]:
    """Return the label of each image in a list of one class."""
    labels = {}
    for image, flag in fields(path, 2):
        if flag not in FLAGS:
            what, seen = "a line is no image with 1, 0 or -1", f"{image} {flag}"
            raise DataError(what, where=path, seen=seen, next=PUBLISHED[SET].place)
        labels[image] = FLAGS[flag]
    return labels
