"""FGVC-Aircraft 2013b: `fgvc-aircraft-2013b/data/{images/, variants.txt, images_variant_*.txt}`."""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, fields, home, lines, listed
from harl_bench.classify.splits import stratified
from harl_bench.core.errors import DataError


def aircraft(root: Path) -> DataSet:
    """Read the official train, val and test. Labels are in the order of variants.txt.

    Raises:
        DataError: a list or a listed image is missing, or an image is of an unknown variant.
    """
    folders = ("fgvc-aircraft-2013b/data", "data", ".")
    base = home("aircraft", root, folders, "images_variant_train.txt")
    classes = lines(base / "variants.txt")
    number = {name: label for label, name in enumerate(classes)}
    images = []
    for split in ("train", "val", "test"):
        path = base / f"images_variant_{split}.txt"
        for image, name in fields(path, 2):
            if name not in number:
                raise DataError("a variant is not in variants.txt", where=path, seen=name)
            images.append((f"images/{image}.jpg", number[name], split))
    # Not drawn from: the validation split is official.
    return listed("aircraft", base, classes, images, partial(stratified, fraction=0.5))
