"""A split of a segmentation data set: images, their labels, and how these are read."""

import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core import manifest
from harl_bench.core.contents import head, joined, of_files, of_sample
from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.images import read_label
from harl_bench.core.palette import voc_palette
from harl_bench.core.plain import read_plain
from harl_bench.segmentation.confusion import IGNORED, Labels

OUTSIDE = 254  # in a table: a value that no label may have
Table = tuple[int, ...]  # of each value of a label file its class, IGNORED or OUTSIDE


class Item(NamedTuple):
    """Paths of an image and of its label, a PNG or SBD's .mat."""

    image: str
    label: str


@dataclass(frozen=True)
class Split:
    """Images with labels, in the order of their list.

    Attributes:
        root: the folder given by the user. home: the set's own, in it.
        classes: names of the K classes.
        table: what each value of a label file means.
        colors: of the classes, for previews.
        published: how many images the published split has.
    """

    name: str
    root: Path
    home: Path
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    table: Table
    colors: tuple[tuple[int, int, int], ...]
    published: int

    def label(self, index: int) -> Labels:
        """Return a label, uint8 [H, W]: classes, and 255 for pixels that do not count.

        Raises:
            UnreadableError: it cannot be decoded.
            DataError: it has colors, or values that are no class.
        """
        path = self.items[index].label
        values = _sbd(path) if path.endswith(".mat") else read_label(path)
        return _classes(values, self.table, path, len(self.classes))

    def part(self, rows: Sequence[int], name: str) -> "Split":
        """Return some of its images as a split of their own."""
        return replace(self, name=name, items=tuple(self.items[row] for row in rows))

    @property
    def departure(self) -> str | None:
        """Return how the number of images departs from the published one, None if it does not."""
        if len(self.items) == self.published:
            return None
        return f"{self.name} has {len(self.items):,} images, the published {self.published:,}"


def fingerprints(splits: Sequence[Split]) -> list[str]:
    """Return digests of the paths and sizes of all images and labels, the current one first.

    Paths are relative to the set's own folder, and in earlier versions to --data, which may be one
    or two folders above.
    """
    paths = {os.path.abspath(path) for split in splits for item in split.items for path in item}
    listed = manifest.sizes("", paths)
    home = os.path.abspath(splits[0].home)
    homes = [home, os.path.dirname(home), os.path.dirname(os.path.dirname(home))]
    return [
        manifest.of_sizes((_relative(path, base), size) for path, size in listed) for base in homes
    ]


def _relative(path: str, base: str) -> str:
    inside = path.startswith(f"{base}{os.sep}")  # relpath takes ten times as long
    return path[len(base) + 1 :] if inside else os.path.relpath(path, base)


def contents_of(splits: Sequence[Split]) -> dict[str, str]:
    """Return digests of what the fingerprint does not cover (core/contents.py): labels, images.

    All bytes of the labels are read: 3,475 PNGs of Cityscapes, 12,031 of VOC with SBD.
    """
    labels = [json.dumps([split.classes, split.table]) for split in splits]
    labels += [of_files([item.label for item in split.items]) for split in splits]

    def images(items: Sequence[Item]) -> str:
        return of_sample(len(items), lambda i: head(items[i].image))

    return {"labels": joined(labels), "images": joined(images(split.items) for split in splits)}


def require_disjoint(train: Split, test: Split) -> None:
    """Raise a DataError where an image of the test split is in the training split."""
    names = {Path(item.image).name for item in train.items}
    shared = [item.image for item in test.items if Path(item.image).name in names]
    if shared:
        raise DataError(
            f"{len(shared):,} images are in {train.name} and in {test.name}",
            where=train.root,
            seen=Path(shared[0]).name,
            next=f"take them out of {train.name}; a score on trained images means nothing",
        )


def _classes(values: NDArray[np.int64], table: Table, path: str, classes: int) -> Labels:
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low >= 0 and high < len(table):
        labels: Labels = np.array(table, dtype=np.uint8)[values]
        if not (labels == OUTSIDE).any():
            return labels
    allowed = [value for value, meaning in enumerate(table) if meaning != OUTSIDE]
    outside = np.setdiff1d(values, allowed)
    hint = "replace it by the original file"
    if set(np.unique(values).tolist()) <= _grays():
        hint += ": these are VOC's colors turned into gray"
    raise DataError(
        f"a label has values that are none of the {classes} classes",
        where=path,
        seen=", ".join(map(str, outside[:6].tolist())),
        next=hint,
    )


def _grays() -> set[int]:
    """Return the gray values that VOC's colors become with convert("L") (ITU-R 601-2 luma)."""
    colors = [*voc_palette()[:21], voc_palette()[IGNORED]]
    return {(19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16 for r, g, b in colors}


def _sbd(path: str) -> NDArray[np.int64]:
    """Return the classes of SBD's cls/*.mat: GTcls.Segmentation."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: Any = loadmat(io.BytesIO(read_plain(path)), variable_names=["GTcls"])
        values = np.asarray(content["GTcls"]["Segmentation"][0, 0])
        if values.ndim != 2 or values.dtype.kind not in "ui":
            raise ValueError(f"an array {values.shape} of {values.dtype}")
        return values.astype(np.int64)
    except FileNotFoundError:
        raise UnreadableError("label not found", where=path, next="check the path") from None
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        NotImplementedError,  # scipy's answer to a file of MATLAB 7.3
        MatReadError,
        zlib.error,
    ) as error:
        seen = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnreadableError(
            "not a label of SBD", where=path, seen=seen, next="unpack benchmark.tgz again"
        ) from None
