"""Data sets whose images are arrays on disk, all of one size."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify.datasets.dataset import DataSet, check, counted
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import Rows, proportional
from harl_bench.core.errors import DataError

Batch = tuple[NDArray[np.uint8], Rows]  # red, green and blue plane [N, 3 * side^2], labels [N]


def joined(name: str, base: Path, names: list[str], parts: list[list[Batch]], side: int) -> DataSet:
    """Join train rows and test rows, each in the order of the files.

    Raises:
        DataError: a label is no class, or a class has no image in a split.
    """
    pixels = np.concatenate([data for part in parts for data, _ in part])
    labels = np.concatenate([truth for part in parts for _, truth in part])
    if labels.min() < 0 or labels.max() >= len(names):
        seen = f"{labels.min()} to {labels.max()} for {len(names)} classes"
        raise DataError(
            "labels are outside the classes", where=base, seen=seen, next=PUBLISHED[name].place
        )
    count = sum(len(truth) for _, truth in parts[0])
    splits = {"train": np.arange(count), "test": np.arange(count, len(labels))}
    paths = [f"{split}/{i:05d}" for split, rows in splits.items() for i in range(len(rows))]
    classes = [str(label_name) for label_name in names]
    check(name, base, classes, labels, splits)
    published = PUBLISHED[name]
    content = hashlib.sha256(labels.tobytes())
    content.update(pixels.tobytes())
    return DataSet(
        name=name,
        root=base,
        classes=classes,
        paths=paths,
        labels=labels,
        splits=splits,
        fingerprint=content.hexdigest(),
        hold_out=partial(proportional, held=published.val, of=published.train),
        departures=counted(name, classes, splits),
        pixels=np.ascontiguousarray(pixels.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)),
        metric=published.metric,
    )
