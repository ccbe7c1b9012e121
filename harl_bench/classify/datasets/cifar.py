"""CIFAR-10 and CIFAR-100, in the Python or the binary version.

Pickles are read by an unpickler that runs no code.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify.datasets.dataset import DataSet, as_integers, check, counted, home, lines
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import Rows, proportional
from harl_bench.core.errors import CheckpointError, DataError

SIDE = 32
BYTES = 3 * SIDE * SIDE
Batch = tuple[NDArray[np.uint8], Rows]  # images [N, 3072], labels [N]


def cifar10(root: Path) -> DataSet:
    """`cifar-10-batches-py/` or `cifar-10-batches-bin/`; 500 of 5,000 training images a class are
    held out.

    Raises:
        DataError: a file is missing or damaged.
    """
    train = [f"data_batch_{i}" for i in range(1, 6)]
    base, binary = _home(
        "cifar10", root, "cifar-10-batches-bin", "cifar-10-batches-py", "data_batch_1"
    )
    if binary:
        names = lines(base / "batches.meta.txt")
        parts = [
            [_binary(base / f"{file}.bin", 1) for file in group]
            for group in (train, ["test_batch"])
        ]
    else:
        names = _pickle(base / "batches.meta", "label_names")["label_names"]
        parts = [
            [_batch(base / file, "labels") for file in group] for group in (train, ["test_batch"])
        ]
    return _joined("cifar10", base, names, parts)


def cifar100(root: Path) -> DataSet:
    """`cifar-100-python/` or `cifar-100-binary/`, fine labels; 5,067 of 50,000 training images are
    held out.

    Raises:
        DataError: a file is missing or damaged.
    """
    base, binary = _home("cifar100", root, "cifar-100-binary", "cifar-100-python", "train")
    if binary:
        names = lines(base / "fine_label_names.txt")
        parts = [
            [_binary(base / f"{file}.bin", 2)] for file in ("train", "test")
        ]  # coarse label, then fine
    else:
        names = _pickle(base / "meta", "fine_label_names")["fine_label_names"]
        parts = [[_batch(base / file, "fine_labels")] for file in ("train", "test")]
    return _joined("cifar100", base, names, parts)


def _home(name: str, root: Path, binary: str, python: str, marker: str) -> tuple[Path, bool]:
    """The folder, and whether it holds the binary version."""
    for place in (root / binary, root):
        if (place / f"{marker}.bin").is_file():
            return place, True
    return home(
        name, root, (python, "."), marker, (f"{binary}/{marker}.bin", f"{marker}.bin")
    ), False


def _binary(path: Path, labels: int) -> Batch:
    """Records of `labels` label bytes (the last is the fine one) and 3,072 of the image."""
    if not path.is_file():
        raise missing("file not found", path.parent, path.name, next=_again(path))
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(
            "cannot read CIFAR batch", where=path, seen=error.strerror, next=_again(path)
        ) from None
    if not len(content) or len(content) % (BYTES + labels):
        seen = f"{len(content):,} bytes, no multiple of {BYTES + labels:,}"
        raise DataError("the CIFAR batch is cut short", where=path, seen=seen, next=_again(path))
    records = content.reshape(-1, BYTES + labels)
    return records[:, labels:], as_integers(records[:, labels - 1])


def _batch(path: Path, key: str) -> Batch:
    found = _pickle(path, "data", key)
    data = np.asarray(found["data"])  # arrays of a checkpoint or pickle are read as tensors
    if data.dtype != np.uint8 or data.shape != (len(found[key]), BYTES):
        seen = f"{list(data.shape)} {data.dtype}"
        raise DataError(
            f"images are not [{len(found[key])}, {BYTES}] bytes",
            where=path,
            seen=seen,
            next=_again(path),
        )
    return data, as_integers(found[key])


def _pickle(path: Path, *keys: str) -> dict[str, Any]:
    """A batch or meta file; torchvision unpickles it outright, here nothing in it can run."""
    from harl_bench.nn import checkpoint

    if not path.is_file():
        raise missing("file not found", path.parent, path.name, next=_again(path))
    try:
        found, stubs = checkpoint.read(path)
    except CheckpointError as error:
        raise DataError(
            "cannot read CIFAR batch", where=path, seen=error.seen, next=_again(path)
        ) from None
    absent = [
        key for key in keys if not isinstance(found, dict) or not hasattr(found.get(key), "__len__")
    ]
    if stubs or absent:
        seen = f"objects of {', '.join(stubs)}" if stubs else f"no {absent[0]}"
        raise DataError("not a CIFAR batch", where=path, seen=seen, next=_again(path))
    return dict(found)


def _joined(name: str, base: Path, names: list[str], parts: list[list[Batch]]) -> DataSet:
    """Train rows, then test rows, each in the order of the files."""
    pixels = np.concatenate([data for part in parts for data, _ in part])
    labels = np.concatenate([truth for part in parts for _, truth in part])
    if labels.min() < 0 or labels.max() >= len(names):
        seen = f"{labels.min()} to {labels.max()} for {len(names)} classes"
        raise DataError(
            "labels are outside the classes", where=base, seen=seen, next=PUBLISHED[name].place
        )
    count = sum(len(truth) for _, truth in parts[0])
    splits = {"train": np.arange(count), "test": np.arange(count, len(labels))}
    paths = [f"train/{i:05d}" for i in range(count)] + [
        f"test/{i:05d}" for i in range(len(labels) - count)
    ]
    classes = [str(one) for one in names]
    check(name, base, classes, labels, splits)
    published = PUBLISHED[name]
    content = hashlib.sha256(labels.tobytes())
    content.update(pixels.tobytes())
    return DataSet(
        name,
        base,
        classes,
        paths,
        labels,
        splits,
        content.hexdigest(),
        partial(proportional, held=published.val, of=published.train),
        counted(name, classes, splits),
        np.ascontiguousarray(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)),
        metric=published.metric,
    )


def _again(path: Path) -> str:
    return PUBLISHED["cifar100" if "100" in path.parent.name else "cifar10"].place
