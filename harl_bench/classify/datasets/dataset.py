"""The data set that every reader returns, and functions that readers share."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.classify.datasets.elsewhere import data_folder, missing, unpacking
from harl_bench.classify.datasets.published import PUBLISHED, Metric, published
from harl_bench.classify.splits import HoldOut, Rows
from harl_bench.core import contents
from harl_bench.core.errors import DataError
from harl_bench.core.images import read_rgb
from harl_bench.core.manifest import fingerprint
from harl_bench.core.nearby import no_data_folder
from harl_bench.core.plain import read_text

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class DataSet:
    """Images in sorted-path order, with labels and splits.

    Args:
        paths: relative to root; names only where `pixels` holds the images.
        labels: [N], or [N, C] where an image may show several classes: 1 present, 0 absent, -1
            neither learnt from nor scored.
        splits: rows of train, test and, if the set has one, val.
        hold_out: draws the validation split where the set has none.
        pixels: [N, H, W, 3] uint8, for sets that are arrays on disk.
        listing: sha256 of the list of labelled images, where one was given.
        metric: the set's score, by which everything is selected on its validation split.
    """

    name: str
    root: Path
    classes: list[str]
    paths: list[str]
    labels: Rows
    splits: dict[str, Rows]
    fingerprint: str
    hold_out: HoldOut
    departures: tuple[str, ...] = ()
    pixels: NDArray[np.uint8] | None = None
    listing: str = ""
    metric: Metric = "top1"

    @property
    def multilabel(self) -> bool:
        """Return whether an image may show several classes."""
        return self.labels.ndim == 2

    @property
    def identity(self) -> str:
        """Return the fingerprint of the images, with that of the list of labelled ones."""
        return f"{self.fingerprint}-{self.listing}" if self.listing else self.fingerprint

    @property
    def contents(self) -> dict[str, str]:
        """Return digests of what the identity does not cover (core/contents.py).

        "labels" is of the classes, of all labels in the order of the images, and of the splits;
        "images" is of a sample of each split's files. Arrays are in the fingerprint whole.
        """
        labels = hashlib.sha256(json.dumps(self.classes).encode())
        for values in (self.labels, *(self.splits[name] for name in sorted(self.splits))):
            labels.update(f"{values.shape}".encode())
            labels.update(values.astype("<i8").tobytes())
        if self.pixels is not None:
            return {"labels": labels.hexdigest()}
        samples = [self._sample(self.splits[name]) for name in sorted(self.splits)]
        return {"labels": labels.hexdigest(), "images": contents.joined(samples)}

    def _sample(self, rows: Rows) -> str:
        return contents.of_sample(
            len(rows), lambda i: contents.head(self.root / self.paths[rows[i]])
        )

    def read(self, row: int) -> Image.Image:
        """Decode one image to RGB, not turned as EXIF says, as in all published numbers.

        Raises:
            DataError: unreadable.
        """
        if self.pixels is not None:
            from PIL import Image

            return Image.fromarray(self.pixels[row])
        return read_rgb(self.root / self.paths[row])

    def divided(self, seed: int, hold_out: HoldOut | None = None) -> dict[str, Rows]:
        """Return the rows of train, val and test, with the official val or one drawn by the seed.

        It is drawn from train, or from the others where a list of labelled images was given
        (subset.py).

        Args:
            hold_out: used instead of the set's own.

        Raises:
            DataError: nothing is left to draw from.
        """
        splits = {name: rows for name, rows in self.splits.items() if name != "others"}
        if "val" in splits:
            return splits
        pool = self.splits.get("others", splits["train"])
        if not len(pool):
            raise self._nothing_left()
        rest, val = (hold_out or self.hold_out)(self.labels, pool, np.random.default_rng(seed))
        if not len(val):
            raise self._nothing_left()
        return {**splits, "train": splits["train"] if "others" in self.splits else rest, "val": val}

    def _nothing_left(self) -> DataError:
        hint = "shorten the list" if "others" in self.splits else "add images"
        return DataError("no training image is left to validate on", where=self.root, next=hint)


def listed(
    name: str,
    root: Path,
    classes: list[str],
    images: Iterable[tuple[str, int | tuple[int, ...], str]],
    hold_out: HoldOut,
    *,
    incomplete: bool = False,
) -> DataSet:
    """Return a data set from (path below root, label, split) of each image.

    A label is the number of a class, or a flag for each class.

    Args:
        incomplete: missing images are no error, nor is a class without a test image.

    Raises:
        DataError: a file is missing or listed twice, or a class has no image in a split, where an
            image may show several: none has.
    """
    rows = sorted(images)
    paths = [path for path, _, _ in rows]
    for path, after in pairwise(paths):
        if path == after:
            raise DataError(
                "an image is listed twice", where=root, seen=path, next=published(name).place
            )
    lacking = [path for path in paths if not os.path.isfile(os.path.join(root, path))]
    if lacking and not (incomplete and len(lacking) < len(paths)):
        what = f"{len(lacking):,} of {len(paths):,} listed images are missing"
        raise missing(what, root, lacking[0], next=published(name).place, name=name, least=2)
    if lacking:
        absent = set(lacking)
        rows = [row for row in rows if row[0] not in absent]
        paths = [path for path, _, _ in rows]
    labels = np.array([label for _, label, _ in rows], dtype=np.int64)
    names = np.array([split for _, _, split in rows])
    splits = {str(split): np.flatnonzero(names == split) for split in np.unique(names)}
    if labels.ndim == 1:
        needed = ("train",) if incomplete else ("train", "test")
        check(name, root, classes, labels, splits, needed)
    if "test" not in splits:
        raise DataError("no test image is there", where=root, next=published(name).place)
    for split, own in splits.items() if labels.ndim == 2 else ():
        if not (labels[own] == 1).any():
            place = published(name).place
            raise DataError(f"no {split} image shows a class", where=root, next=place)
    return DataSet(
        name,
        root,
        classes,
        paths,
        labels,
        splits,
        fingerprint(root, paths),
        hold_out,
        counted(name, classes, splits),
        metric=published(name).metric,
    )


def check(
    name: str,
    root: Path,
    classes: list[str],
    labels: Rows,
    splits: dict[str, Rows],
    needed: Iterable[str] = ("train", "test"),
) -> None:
    """Check that every class has images in the needed splits.

    Raises:
        DataError: names the first class without.
    """
    for split in needed:
        absent = np.setdiff1d(np.arange(len(classes)), labels[splits.get(split, [])])
        if len(absent):
            what = f"{len(absent)} of {len(classes)} classes have no {split} image"
            raise DataError(
                what, where=root, seen=f"first {classes[absent[0]]!r}", next=published(name).place
            )


def counted(name: str, classes: list[str], splits: dict[str, Rows]) -> tuple[str, ...]:
    """Return how the numbers of classes and images depart from the published set's, in words."""
    if name not in PUBLISHED:
        return ()
    published = PUBLISHED[name]
    counts = [
        ("classes", len(classes), published.classes),
        ("training images", len(splits["train"]), published.train),
        ("test images", len(splits["test"]), published.test),
    ]
    if published.official_val:
        counts.append(("validation images", len(splits["val"]), published.val))
    return tuple(
        f"{n:,} {what} instead of the published {expected:,}"
        for what, n, expected in counts
        if n != expected
    )


def home(
    name: str, root: Path, candidates: Iterable[str], marker: str, others: Iterable[str] = ()
) -> Path:
    """Return the first root/candidate that holds the file or folder `marker`.

    Args:
        others: paths that identify the set's other layouts, to be searched for nearby.

    Raises:
        DataError: there is none; it says what belongs where, or which --data to give.
    """
    if not root.is_dir():
        raise no_data_folder(root)
    candidates = list(candidates)
    folders = [root / candidate for candidate in candidates]
    for folder in folders:
        if (folder / marker).exists():
            return folder
    what = f"no {folders[0] / marker}"
    layouts = [*(f"{candidate}/{marker}" for candidate in candidates), *others]
    if data := data_folder(root, layouts):
        raise DataError(
            what, where=root, seen=f"{name} in {data}", next=f"--data {quote(str(data))}"
        )
    if packed := unpacking(name, (root, *folders)):
        raise DataError(what, where=root, seen=f"{packed[0]} is packed", next=packed[1])
    seen = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder"
    raise DataError(what, where=root, seen=seen, next=published(name).place)


def lines(path: Path) -> list[str]:
    """Return the stripped lines of a text file that are not empty.

    Raises:
        DataError: missing, empty or not text.
    """
    again = "unpack the data set again"
    if not path.exists():
        raise missing("cannot read list", path.parent, path.name, next=again)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read list", where=path, seen=error, next=again) from None
    stripped = [line.strip() for line in text.splitlines() if line.strip()]
    if not stripped:
        raise DataError("the list is empty", where=path, next=again)
    return stripped


def fields(path: Path, count: int) -> list[list[str]]:
    """Return the fields of each line of a list, the last with the rest of the line.

    Raises:
        DataError: as `lines`, or a line has fewer fields.
    """
    rows = [line.split(None, count - 1) for line in lines(path)]
    for row in rows:
        if len(row) < count:
            what = f"a line has fewer than {count} fields"
            raise DataError(what, where=path, seen=" ".join(row), next="unpack the data set again")
    return rows


def matlab(name: str, path: Path) -> dict[str, Any]:
    """Return the plain arrays of a MATLAB file of the set `name`. scipy runs no code from it.

    Raises:
        DataError: missing or damaged.
    """
    from scipy.io import loadmat

    place = published(name).place
    if not path.is_file():
        raise missing("file not found", path.parent, path.name, next=place)
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises whatever a malformed file provokes
        raise DataError("cannot read MATLAB file", where=path, seen=error, next=place) from None
    return content


def as_integers(values: Any) -> Rows:
    """Return labels as [N] int64."""
    return np.asarray(values, dtype=np.int64).reshape(-1)
