"""Few labels: lists of the training images whose labels may be used, as SimCLR's of ImageNet.

A line is a path below the data folder or below its train folder, or a bare file name (SimCLR's
lists hold `n01440764_10026.JPEG`). The lists are not shipped, but the sha256 of their sorted lines
is known, so a file can be verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.datasets.dataset import lines
from harl_bench.classify.splits import Rows
from harl_bench.core.errors import DataError


def restricted(data: DataSet, path: Path, *, sha256: str, among: Iterable[str] = ()) -> DataSet:
    """Return the data set with train cut down to a list; the rest is the split "others".

    Args:
        sha256: of the published list's sorted lines, or "". Another list is a departure.
        among: file names of lists to look for beside the data when `path` is empty.

    Raises:
        DataError: the list is missing, names an image twice or one that does not exist, or leaves
            a class without any.
    """
    path = _list_file(data, path, list(among))
    named = lines(path)
    train = data.splits["train"]
    rows = _rows(data, named)
    doubled = len(rows) - len(set(rows))
    if doubled:
        raise DataError(f"{doubled} images are listed twice", where=path)
    selected = np.array(sorted(rows), dtype=np.int64)
    absent = np.setdiff1d(_present(data.labels[train]), _present(data.labels[selected]))
    if len(absent):
        seen = f"{len(absent)} such classes, first {data.classes[absent[0]]!r}"
        raise DataError("a class has no image in the list of labelled ones", where=path, seen=seen)
    digest = hashlib.sha256("".join(f"{line}\n" for line in sorted(named)).encode()).hexdigest()
    departures = [text for text in data.departures if "training images" not in text]
    if sha256 != digest:
        departures.append(f"{len(named):,} labelled images by another list than SimCLR's")
    others = np.setdiff1d(train, selected)
    return replace(
        data,
        splits={**data.splits, "train": selected, "others": others},
        listing=digest,
        departures=tuple(departures),
    )


def _present(labels: Rows) -> Rows:
    """Return the classes of labels [N], or those that images with labels [N, C] show."""
    return labels if labels.ndim == 1 else np.flatnonzero((labels == 1).any(axis=0))


def _list_file(data: DataSet, path: Path, among: list[str]) -> Path:
    if path != Path():
        return path
    for folder in (data.root, data.root / "imagenet_subsets"):
        for name in among:
            if (folder / name).is_file():
                return folder / name
    hint = (
        f"add list=FILE, or put {' or '.join(among)} into the data folder (SimCLR's repository, "
        "imagenet_subsets/)"
    )
    raise DataError("no list of the labelled images", where=data.root, next=hint)


def _rows(data: DataSet, named: list[str]) -> list[int]:
    """Return the training rows of the lines, by path or, if no line has a folder, by file name."""
    row_of: dict[str, int] = {}
    bare = not any("/" in line for line in named)
    for row in data.splits["train"].tolist():
        path = data.paths[row]
        for key in (path.rpartition("/")[2],) if bare else (path, path.partition("/")[2]):
            if row_of.setdefault(key, row) != row:
                hint = "name the images by their path"
                raise DataError(
                    "two training images of one name", where=data.root, seen=key, next=hint
                )
    unknown = [line for line in named if line not in row_of]
    if unknown:
        seen = f"{len(unknown):,} of {len(named):,}, first {unknown[0]}"
        raise DataError(
            "listed images are not among the training images", where=data.root, seen=seen
        )
    return [row_of[line] for line in named]
