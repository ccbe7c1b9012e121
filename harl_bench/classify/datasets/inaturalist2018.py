"""iNaturalist 2018, with its validation images as the test split, as the field measures it.

`inaturalist2018/{train2018.json, val2018.json, train_val2018/<group>/<category>/}`.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from harl_bench.classify.datasets.dataset import DataSet, home, listed
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import per_class
from harl_bench.core.errors import DataError
from harl_bench.core.plain import read_plain

LISTS = {"train": "train2018.json", "test": "val2018.json"}
HELD = 1  # image a class: some have no more than two


def inaturalist2018(root: Path) -> DataSet:
    """Read the official lists, with one training image a class held out.

    Raises:
        DataError: a list or a listed image is missing or damaged.
    """
    base = home("inaturalist2018", root, ("inaturalist2018", "inat2018", "."), LISTS["train"])
    lists = {split: _read(base, file) for split, file in LISTS.items()}
    try:
        names = {int(row["id"]): str(row["name"]) for row in lists["train"]["categories"]}
        images = []
        for split, content in lists.items():
            label_of = {row["image_id"]: int(row["category_id"]) for row in content["annotations"]}
            images += [
                (str(row["file_name"]), label_of[row["id"]], split) for row in content["images"]
            ]
    except (KeyError, TypeError, ValueError) as error:
        what, place = "a list lacks an entry", PUBLISHED["inaturalist2018"].place
        raise DataError(what, where=base, seen=f"no {error}", next=place) from None
    number = {id_: label for label, id_ in enumerate(sorted(names))}
    unknown = [path for path, id_, _ in images if id_ not in number]
    if unknown:
        raise DataError("an image of no category", where=base, seen=unknown[0])
    shown = [(path, number[id_], split) for path, id_, split in images]
    classes = [names[id_] for id_ in number]
    return listed("inaturalist2018", base, classes, shown, partial(per_class, count=HELD))


def _read(base: Path, file: str) -> dict[str, Any]:
    place = PUBLISHED["inaturalist2018"].place
    if not (base / file).is_file():
        raise missing("cannot read list", base, file, next=place)
    try:
        content: dict[str, Any] = json.loads(read_plain(base / file))
    except (OSError, ValueError) as error:
        raise DataError("cannot read list", where=base / file, seen=error, next=place) from None
    return content
