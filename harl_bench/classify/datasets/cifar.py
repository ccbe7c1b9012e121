"""CIFAR-10 and CIFAR-100, in the Python version, unpickled without running code, or the binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harl_bench.classify.datasets.arrays import Batch, joined
from harl_bench.classify.datasets.dataset import DataSet, as_integers, home, lines
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.core.errors import CheckpointError, DataError

SIDE = 32
BYTES = 3 * SIDE * SIDE


def cifar10(root: Path) -> DataSet:
    """Read `cifar-10-batches-py/` or `cifar-10-batches-bin/`.

    500 of 5,000 training images a class are held out.

    Raises:
        DataError: a file is missing or damaged.
    """
    files = ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"])
    base, binary = _home(
        "cifar10", root, "cifar-10-batches-bin", "cifar-10-batches-py", "data_batch_1"
    )
    if binary:
        names = lines(base / "batches.meta.txt")
        parts = [[_binary(base / f"{file}.bin", 1) for file in part] for part in files]
    else:
        names = _pickle(base / "batches.meta", "label_names")["label_names"]
        parts = [[_batch(base / file, "labels") for file in part] for part in files]
    return joined("cifar10", base, names, parts, SIDE)


def cifar100(root: Path) -> DataSet:
    """Read `cifar-100-python/` or `cifar-100-binary/` with fine labels.

    5,067 of 50,000 training images are held out.

    Raises:
        DataError: a file is missing or damaged.
    """
    base, binary = _home("cifar100", root, "cifar-100-binary", "cifar-100-python", "train")
    if binary:
        names = lines(base / "fine_label_names.txt")
        parts = [[_binary(base / f"{file}.bin", 2)] for file in ("train", "test")]
    else:
        names = _pickle(base / "meta", "fine_label_names")["fine_label_names"]
        parts = [[_batch(base / file, "fine_labels")] for file in ("train", "test")]
    return joined("cifar100", base, names, parts, SIDE)


def _home(name: str, root: Path, binary: str, python: str, marker: str) -> tuple[Path, bool]:
    """Return the folder, and whether it holds the binary version."""
    for folder in (root / binary, root):
        if (folder / f"{marker}.bin").is_file():
            return folder, True
    others = (f"{binary}/{marker}.bin", f"{marker}.bin")
    return home(name, root, (python, "."), marker, others), False


def _binary(path: Path, labels: int) -> Batch:
    """Read records of `labels` label bytes (coarse, then fine) and 3,072 of the image."""
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
    batch = _pickle(path, "data", key)
    data = np.asarray(batch["data"])  # arrays of a checkpoint or pickle are read as tensors
    shape = [len(batch[key]), BYTES]
    if data.dtype != np.uint8 or list(data.shape) != shape:
        what, seen = f"images are not {shape} bytes", f"{list(data.shape)} {data.dtype}"
        raise DataError(what, where=path, seen=seen, next=_again(path))
    return data, as_integers(batch[key])


def _pickle(path: Path, *keys: str) -> dict[str, Any]:
    """Read a batch or meta file without running code from it, unlike torchvision."""
    from harl_bench.nn import checkpoint

    if not path.is_file():
        raise missing("file not found", path.parent, path.name, next=_again(path))
    try:
        content, stubs = checkpoint.read(path)
    except CheckpointError as error:
        raise DataError(
            "cannot read CIFAR batch", where=path, seen=error.seen, next=_again(path)
        ) from None
    entries = content if isinstance(content, dict) else {}
    absent = [key for key in keys if not hasattr(entries.get(key), "__len__")]
    if stubs or absent:
        seen = f"objects of {', '.join(stubs)}" if stubs else f"no {absent[0]}"
        raise DataError("not a CIFAR batch", where=path, seen=seen, next=_again(path))
    return dict(entries)


def _again(path: Path) -> str:
    return PUBLISHED["cifar100" if "100" in path.parent.name else "cifar10"].place
