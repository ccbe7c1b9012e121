"""Food-101: `food-101/{meta/{train,test}.json, images/<class>/<id>.jpg}` (torchvision's
Food101).
"""

import json
from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, home, listed
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import proportional
from harl_bench.core.errors import DataError
from harl_bench.core.plain import read_plain


def food101(root: Path) -> DataSet:
    """The official lists; classes in alphabetical order; 75 of 750 training images a class are held
    out.

    Raises:
        DataError: a list or a listed image is missing.
    """
    base = home("food101", root, ("food-101", "."), "meta/train.json")
    lists = {split: _read(base / "meta" / f"{split}.json") for split in ("train", "test")}
    classes = sorted(lists["train"])
    number = {name: label for label, name in enumerate(classes)}
    images = []
    for split, members in lists.items():
        for name, ids in members.items():
            if name not in number:
                raise DataError(
                    "a class of test.json is not in train.json", where=base / "meta", seen=name
                )
            images += [(f"images/{image}.jpg", number[name], split) for image in ids]
    published = PUBLISHED["food101"]
    return listed(
        "food101",
        base,
        classes,
        images,
        partial(proportional, held=published.val, of=published.train),
    )


def _read(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        raise missing("cannot read list", path.parent, path.name, next=PUBLISHED["food101"].place)
    try:
        found = json.loads(read_plain(path))
        return {str(name): [str(image) for image in ids] for name, ids in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            "cannot read list", where=path, seen=error, next=PUBLISHED["food101"].place
        ) from None
