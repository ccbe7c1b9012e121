"""Stanford Cars as torchvision's StanfordCars lays it out, or `car_ims/` with `cars_annos.mat`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harl_bench.classify.datasets.dataset import DataSet, home, listed, matlab
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import proportional
from harl_bench.core.errors import DataError

T = TypeVar("T")
_matlab = partial(matlab, "cars")


def cars(root: Path) -> DataSet:
    """Read the official splits, of which 1,650 of 8,144 images are held out, by class size.

    Labels count from 0, in the files from 1.

    Raises:
        DataError: a file or image is missing or damaged, or the test annotations are those without
            labels.
    """
    folders = (root / "stanford_cars", root)
    single = [folder for folder in folders if (folder / "cars_annos.mat").is_file()]
    if single and not (single[0] / "cars_test_annos_withlabels.mat").is_file():
        base = single[0]
        file = _matlab(base / "cars_annos.mat")
        classes, notes = _classes(file, base), _annotations(file, base)
        names = _column(notes, "relative_im_path", str, base)
        labels, tested = (_column(notes, name, int, base) for name in ("class", "test"))
        images = [
            (name, label - 1, "test" if test else "train")
            for name, label, test in zip(names, labels, tested, strict=True)
        ]
    else:
        others = ("stanford_cars/cars_annos.mat", "cars_annos.mat")
        base = home("cars", root, ("stanford_cars", "."), "devkit/cars_train_annos.mat", others)
        classes = _classes(_matlab(base / "devkit" / "cars_meta.mat"), base)
        images = []
        for split, path in {
            "train": base / "devkit" / "cars_train_annos.mat",
            "test": base / "cars_test_annos_withlabels.mat",
        }.items():
            notes = _annotations(_matlab(path), path)
            names, labels = _column(notes, "fname", str, path), _column(notes, "class", int, path)
            images += [
                (f"cars_{split}/{name}", label - 1, split)
                for name, label in zip(names, labels, strict=True)
            ]
    present = {label for _, label, _ in images}
    if not present <= set(range(len(classes))):
        seen = f"{min(present) + 1} to {max(present) + 1} for {len(classes)} classes"
        raise DataError("labels are outside 1 to the number of classes", where=base, seen=seen)
    published = PUBLISHED["cars"]
    return listed(
        "cars", base, classes, images, partial(proportional, held=published.val, of=published.train)
    )


def _classes(file: dict[str, Any], where: Path) -> list[str]:
    if "class_names" not in file:
        raise DataError(
            "no class_names", where=where, seen=", ".join(file), next=PUBLISHED["cars"].place
        )
    return [str(name) for name in np.atleast_1d(file["class_names"])]


def _annotations(file: dict[str, Any], where: Path) -> Any:
    if "annotations" not in file:
        raise DataError(
            "no annotations", where=where, seen=", ".join(file), next=PUBLISHED["cars"].place
        )
    return np.atleast_1d(file["annotations"])


def _column(notes: Any, name: str, kind: Callable[[Any], T], where: Path) -> list[T]:
    """Return one field of all annotations.

    Raises:
        DataError: of another kind or missing, as "class" is in the devkit's own test annotations.
    """
    if notes.dtype.names is None or name not in notes.dtype.names:
        seen = ", ".join(notes.dtype.names or ())
        raise DataError(
            f"annotations without {name!r}", where=where, seen=seen, next=PUBLISHED["cars"].place
        )
    try:
        return [kind(value) for value in notes[name]]
    except (TypeError, ValueError) as error:
        raise DataError(f"annotations with a strange {name!r}", where=where, seen=error) from None
