"""DTD: `dtd/dtd/{images/<class>/, labels/{train,val,test}1.txt}` (torchvision's DTD, partition
1).
"""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, home, lines, listed
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import stratified
from harl_bench.core.errors import DataError


def dtd(root: Path) -> DataSet:
    """Split 1 with its official validation list; the final fit uses train1 + val1.

    Classes are the image folders: torchvision takes them from the list, so that a truncated list
    shifts labels.

    Raises:
        DataError: a list or a listed image is missing.
    """
    base = home("dtd", root, ("dtd/dtd", "dtd", "."), "labels/train1.txt")
    if not (base / "images").is_dir():
        raise missing("no images/ folder", base, "images", next=PUBLISHED["dtd"].place)
    classes = sorted(path.name for path in (base / "images").iterdir() if path.is_dir())
    number = {name: label for label, name in enumerate(classes)}
    images = []
    for split in ("train", "val", "test"):
        for path in lines(base / "labels" / f"{split}1.txt"):
            name = path.partition("/")[0]
            if name not in number:
                what = "a listed class has no image folder"
                raise DataError(what, where=base / "images", seen=name, next=PUBLISHED["dtd"].place)
            images.append((f"images/{path}", number[name], split))
    return listed("dtd", base, classes, images, partial(stratified, share=0.5))
