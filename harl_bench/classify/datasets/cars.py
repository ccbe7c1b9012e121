"""Stanford Cars in its two official layouts: torchvision's StanfordCars, or `car_ims/` with
`cars_annos.mat`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harl_bench.classify.datasets.dataset import DataSet, home, listed
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import proportional
from harl_bench.core.errors import DataError

T = TypeVar("T")


def cars(root: Path) -> DataSet:
    """The official splits; labels count from 0 (from 1 in the files); 1,650 of 8,144 are held out,
    by class size.

    Raises:
        DataError: a file or image is missing or damaged, or the test annotations are those without
            labels.
    """
    whole = [
        place for place in (root / "stanford_cars", root) if (place / "cars_annos.mat").is_file()
    ]
    if whole and not (whole[0] / "cars_test_annos_withlabels.mat").is_file():
        base = whole[0]
        file = _read(base / "cars_annos.mat")
        classes, notes = _classes(file, base), _annotations(file, base)
        paths, labels = (
            _column(notes, "relative_im_path", str, base),
            _column(notes, "class", int, base),
        )
        parts = ["test" if test else "train" for test in _column(notes, "test", int, base)]
        images = [
            (path, label - 1, part) for path, label, part in zip(paths, labels, parts, strict=True)
        ]
    else:
        whole_set = ("stanford_cars/cars_annos.mat", "cars_annos.mat")
        base = home("cars", root, ("stanford_cars", "."), "devkit/cars_train_annos.mat", whole_set)
        classes = _classes(_read(base / "devkit" / "cars_meta.mat"), base)
        images = []
        for split, path in {
            "train": base / "devkit" / "cars_train_annos.mat",
            "test": base / "cars_test_annos_withlabels.mat",
        }.items():
            notes = _annotations(_read(path), path)
            names, labels = _column(notes, "fname", str, path), _column(notes, "class", int, path)
            images += [
                (f"cars_{split}/{name}", label - 1, split)
                for name, label in zip(names, labels, strict=True)
            ]
    known = {label for _, label, _ in images}
    if not known <= set(range(len(classes))):
        seen = f"{min(known) + 1} to {max(known) + 1} for {len(classes)} classes"
        raise DataError("labels are outside 1 to the number of classes", where=base, seen=seen)
    published = PUBLISHED["cars"]
    return listed(
        "cars", base, classes, images, partial(proportional, held=published.val, of=published.train)
    )


def _read(path: Path) -> dict[str, Any]:
    """A MATLAB file as plain arrays; scipy runs nothing from it."""
    from scipy.io import loadmat

    if not path.is_file():
        raise missing("file not found", path.parent, path.name, next=PUBLISHED["cars"].place)
    try:
        found: dict[str, Any] = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises whatever a malformed file provokes
        raise DataError(
            "cannot read MATLAB file", where=path, seen=error, next=PUBLISHED["cars"].place
        ) from None
    return found


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
    """One field of all annotations.

    Raises:
        DataError: of another kind, or absent: "class" is, in the devkit's own test annotations.
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
