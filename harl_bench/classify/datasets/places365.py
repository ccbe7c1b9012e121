"""Places365-Standard, with its validation images as the test split, as the field measures it.

`places365/{categories_places365.txt, places365_train_standard.txt, places365_val.txt}` beside
`data_256_standard/<letter>/<class>/` and `val_256/`, as torchvision's and the authors' archives.
"""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, fields, home, listed
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import per_class
from harl_bench.core.errors import DataError

LISTS = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
FOLDERS = {
    "train": ("data_256_standard", "data_256", "data_large_standard", "data_large"),
    "test": ("val_256", "val_large"),
}
HELD = 10  # images a class


def places365(root: Path) -> DataSet:
    """Read the official lists, with 10 training images a class held out.

    Raises:
        DataError: a list, a folder or a listed image is missing, or a label is no category.
    """
    base = home("places365", root, ("places365", "places365_standard", "."), LISTS["train"])
    names = {}
    for name, label in fields(base / "categories_places365.txt", 2):
        if not label.isdecimal():
            what, where = "a category without a number", base / "categories_places365.txt"
            raise DataError(what, where=where, seen=name, next=PUBLISHED["places365"].place)
        names[int(label)] = name.lstrip("/").partition("/")[2]
    images = []
    for split, file in LISTS.items():
        present = [name for name in FOLDERS[split] if (base / name).is_dir()]
        if not present:
            what = f"no folder of the {split} images, {' or '.join(FOLDERS[split])}"
            raise DataError(what, where=base, next=PUBLISHED["places365"].place)
        for path, label in fields(base / file, 2):
            if not label.isdecimal() or int(label) not in names:
                raise DataError("an image of no category", where=base / file, seen=path)
            images.append((f"{present[0]}/{path.lstrip('/')}", int(label), split))
    classes = [names.get(label, "?") for label in range(max(names) + 1)]
    return listed("places365", base, classes, images, partial(per_class, count=HELD))
