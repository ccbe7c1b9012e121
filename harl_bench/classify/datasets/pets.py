"""Oxford-IIIT Pets: `oxford-iiit-pet/{images/, annotations/{trainval,test}.txt}`."""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, fields, home, listed
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import per_class
from harl_bench.core.errors import DataError

HELD = 20  # images a class


def pets(root: Path) -> DataSet:
    """Read the official splits, with 20 training images a breed held out.

    Labels count from 1 in the files and from 0 here.

    Raises:
        DataError: a list or a listed image is missing, or a line states no label.
    """
    base = home("pets", root, ("oxford-iiit-pet", "."), "annotations/trainval.txt")
    names: dict[int, str] = {}
    images = []
    for split, file in (("train", "trainval"), ("test", "test")):
        path = base / "annotations" / f"{file}.txt"
        for image, label, *_ in fields(path, 4):
            if not label.isdecimal() or label == "0":
                seen = f"{image} {label}"
                next_ = PUBLISHED["pets"].place
                raise DataError("a line without a label", where=path, seen=seen, next=next_)
            names[int(label)] = image.rpartition("_")[0].replace("_", " ").title()
            images.append((f"images/{image}.jpg", int(label) - 1, split))
    classes = [names.get(label, "?") for label in range(1, max(names) + 1)]
    return listed("pets", base, classes, images, partial(per_class, count=HELD))
