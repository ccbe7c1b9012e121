"""Caltech-101: `caltech101/101_ObjectCategories/<class>/image_0001.jpg`, as torchvision's."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from harl_bench.classify.datasets.dataset import DataSet, home, listed
from harl_bench.classify.splits import per_class
from harl_bench.core.images import find_images

FOLDER, BACKGROUND = "101_ObjectCategories", "BACKGROUND_Google"
TRAIN, HELD = 30, 5  # images a class, the second of the first
DRAW = 0  # seed of the 30 a class, which are the same in every run


def caltech101(root: Path) -> DataSet:
    """Draw 30 training images a class, 5 of them held out; all others are the test images.

    paper: 30 a class of 102 classes, 3,060 and 6,084 images (BYOL, after Kornblith et al.), drawn
    once; here: 30 a class of 101, drawn once over the sorted paths; because torchvision and the
    set's authors leave the background out, and the list was not published.

    Raises:
        DataError: the folder is missing, or a class has too few images.
    """
    base = home("caltech101", root, ("caltech101", "caltech-101", "."), FOLDER)
    paths = [path.as_posix() for path in find_images(base / FOLDER)]
    paths = sorted(p for p in paths if p.count("/") == 1 and not p.startswith(f"{BACKGROUND}/"))
    classes = sorted({path.partition("/")[0] for path in paths})
    labels = np.array([classes.index(path.partition("/")[0]) for path in paths], dtype=np.int64)
    random = np.random.default_rng(DRAW)
    _, drawn = per_class(labels, np.arange(len(paths)), random, count=TRAIN)
    trained = set(drawn.tolist())
    images = [
        (f"{FOLDER}/{path}", int(label), "train" if row in trained else "test")
        for row, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
    data = listed("caltech101", base, classes, images, partial(per_class, count=HELD))
    background = f"{BACKGROUND} is left out, which the published counts of images include"
    return replace(data, departures=(*data.departures, background))
