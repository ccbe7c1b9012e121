"""Few labels: a list of the training images whose labels may be used, such as SimCLR's 1 % and 10 %
of ImageNet.

A line is a path below the data folder or below its train folder, or a bare file name (SimCLR's
lists hold `n01440764_10026.JPEG`). The lists are not shipped; their sorted lines' sha256 is known,
so a file can be verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.datasets.dataset import lines
from harl_bench.core.errors import DataError


def restricted(data: DataSet, path: Path, *, sha256: str, among: Iterable[str] = ()) -> DataSet:
    """The data set with train cut down to a list; the other training images become the split
    "others".

    Args:
        sha256: of the published list's sorted lines; another list is a departure. "" knows no list.
        among: file names of lists to look for beside the data when `path` is empty.

    Raises:
        DataError: the list is absent, names an image twice or one that is not there, or leaves a
            class without any.
    """
    named = lines(_found(data, path, list(among)))
    train = data.splits["train"]
    rows = _rows(data, named)
    doubled = len(rows) - len(set(rows))
    if doubled:
        raise DataError(f"{doubled} images are listed twice", where=path)
    chosen = np.array(sorted(rows), dtype=np.int64)
    absent = np.setdiff1d(data.labels[train], data.labels[chosen])
    if len(absent):
        seen = f"{len(absent)} such classes, first {data.classes[absent[0]]!r}"
        raise DataError("a class has no image in the list of labelled ones", where=path, seen=seen)
    digest = hashlib.sha256("".join(f"{line}\n" for line in sorted(named)).encode()).hexdigest()
    other = (
        (f"{len(named):,} labelled images by another list than SimCLR's",)
        if sha256 != digest
        else ()
    )
    others = np.setdiff1d(train, chosen)
    return replace(
        data,
        splits={**data.splits, "train": chosen, "others": others},
        listing=digest,
        departures=(*(d for d in data.departures if "training images" not in d), *other),
    )


def _found(data: DataSet, path: Path, among: list[str]) -> Path:
    if path != Path():
        return path
    for place in (data.root, data.root / "imagenet_subsets"):
        for name in among:
            if (place / name).is_file():
                return place / name
    hint = (
        f"add list=FILE, or place {' or '.join(among)} in the data folder (SimCLR's repository, "
        "imagenet_subsets/)"
    )
    raise DataError("no list of the labelled images", where=data.root, next=hint)


def _rows(data: DataSet, named: list[str]) -> list[int]:
    """Training rows of the lines, by path or, where no line has a folder, by file name."""
    places: dict[str, int] = {}
    bare = not any("/" in line for line in named)
    for row in data.splits["train"].tolist():
        path = data.paths[row]
        for key in (path.rpartition("/")[2],) if bare else (path, path.partition("/")[2]):
            if places.setdefault(key, row) != row:
                hint = "name the images by their path"
                raise DataError(
                    "two training images of one name", where=data.root, seen=key, next=hint
                )
    unknown = [line for line in named if line not in places]
    if unknown:
        seen = f"{len(unknown):,} of {len(named):,}, first {unknown[0]}"
        raise DataError(
            "listed images are not among the training images", where=data.root, seen=seen
        )
    return [places[line] for line in named]
