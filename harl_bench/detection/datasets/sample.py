"""Annotated images of any data set, and a list of them that worker processes share.

N objects of one image. Boxes are xyxy pixels as in the annotation file: 0-based, float64, not
clipped.
"""

import hashlib
import json
import os
import pickle
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.contents import head, joined, of_sample
from harl_bench.core.errors import DataError
from harl_bench.core.manifest import of_sizes, sizes
from harl_bench.core.progress import log

# polygons (the parts of an object, each x0 y0 x1 y1 ...), or a compressed COCO run-length code
# {"size": [H, W], "counts": bytes}
Segment = list[NDArray[np.float64]] | dict[str, Any]

# Faults of a test split that move its score become departures of the result.
SCORED_TWICE = "test images listed under a second id, scored twice"
BOX_AS_OUTLINE = "test objects without a usable outline, their box scored as their mask"
IN_TRAINING = "test images that are among the training images"
MOVING_SCORES = (SCORED_TWICE, BOX_AS_OUTLINE, IN_TRAINING)
TRAINED_TWICE = "images listed under a second id, seen twice an epoch"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its objects.

    Attributes:
        boxes: [N, 4]. classes: [N] int64, 0-based. crowd, difficult: [N] bool.
        segments: N outlines, or None.
    """

    path: str
    image_id: str | int
    width: int
    height: int
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    segments: list[Segment] | None = None


class Samples(Sequence[Sample]):
    """A read-only list packed into one block of bytes.

    Python objects shared with forked workers are copied page by page, because reading them changes
    their reference counts: 118,287 COCO images would exist once per worker. Detectron2 packs them
    for the same reason (D2:data/common.py).
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        packed = [pickle.dumps(sample, protocol=5) for sample in samples]
        self._ends = np.cumsum([len(item) for item in packed], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


class Truth(NamedTuple):
    """Ground truth for COCO's evaluators.

    Attributes:
        image_ids, category_ids, class_names: of the split's file, in the order of `content`.
        content: JSON of validated fields; images, categories and annotations are numbered from 1.
    """

    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    content: bytes


@dataclass(frozen=True)
class Dataset:
    """The annotated images of one or more splits.

    Attributes:
        files: relative to `root`; they make the fingerprint.
        faults: number of skipped or odd items, by sentence.
        departures: how its splits differ from the published ones (names.py).
        bitmasks: an object besides crowds is outlined by a run-length code. Detectron2 takes either
            polygons or bitmasks, so both engines then train on bitmasks only.
        truth: for COCO's metric; None for VOC and training.
        folder: of the set in a folder of all data. Whether it is in the names of `files` depends
            on --data, and changes no fingerprint.
        contents: digests of each annotation file whose size and layout do not matter, with image
            names in the set's own folder and in a folder of all data.
        labels: digest of everything that is read of the annotations.
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    samples: Samples
    files: list[str]
    faults: dict[str, int] = field(default_factory=dict)
    category_ids: tuple[int, ...] = ()
    bitmasks: bool = False
    truth: Truth | None = None
    folder: str = ""
    contents: dict[str, tuple[str, str]] = field(default_factory=dict)
    labels: str = ""
    departures: tuple[str, ...] = ()


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """Return several splits as one training set, e.g. voc_2007_trainval+voc_2012_trainval.

    Raises:
        DataError: the parts do not have the same classes.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names:
            raise DataError("splits have different classes", where=f"{first.name} and {part.name}")
    return Dataset(
        name="+".join(part.name for part in parts),
        root=first.root,
        class_names=first.class_names,
        samples=Samples(sample for part in parts for sample in part.samples),
        files=[file for part in parts for file in part.files],
        faults=dict(sum((Counter(part.faults) for part in parts), Counter())),
        category_ids=first.category_ids,
        bitmasks=any(part.bitmasks for part in parts),
        folder=first.folder,
        contents={file: content for part in parts for file, content in part.contents.items()},
        labels=joined(part.labels for part in parts),
        departures=tuple(text for part in parts for text in part.departures),
    )


def for_training(dataset: Dataset) -> Dataset:
    """Return the data set without images that hold no object besides crowds.

    As D2:data/build.py:46-74: 117,266 of COCO's 118,287 images remain. Degenerate boxes are
    objects here; the mapper drops them, as Detectron2's does.

    Raises:
        DataError: no image remains.
    """
    samples = [s for s in dataset.samples if len(s.classes) and not s.crowd.all()]
    dropped = len(dataset.samples) - len(samples)
    if not samples:
        seen = f"{dropped} images of {dataset.name}"
        raise DataError("no training image has an object", where=dataset.root, seen=seen)
    fault = {"images without objects, left out of training": dropped} if dropped else {}
    return replace(dataset, samples=Samples(samples), faults=dataset.faults | fault)


def count_boxes(
    faults: dict[str, int], boxes: NDArray[np.float64], width: int, height: int
) -> None:
    """Count boxes without area (training skips them) and beyond the image (training clips them)."""
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2]
    empty = (sides <= 0).any(1)
    inside = np.minimum(boxes[:, 2:], (width, height)) - np.maximum(boxes[:, :2], 0)
    outside = (inside <= 0).any(1) & ~empty
    # A pixel of slack: COCO's own boxes leave the image by rounding.
    over = (boxes < -1).any(1) | (boxes[:, 2:] > (width + 1, height + 1)).any(1)
    for fault, matches in (
        ("boxes without area, skipped in training", empty),
        ("boxes wholly outside their image, skipped in training", outside),
        ("boxes partly outside their image, clipped in training", over & ~outside & ~empty),
    ):
        count_fault(faults, fault, int(matches.sum()))


def count_fault(faults: dict[str, int], fault: str, n: int = 1) -> None:
    """Add `n` to a fault's count."""
    if n:
        faults[fault] = faults.get(fault, 0) + n


def warn_faults(dataset: Dataset) -> None:
    """Log one warning per kind of fault."""
    for fault, count in dataset.faults.items():
        log.warning("%s: %d %s", dataset.name, count, fault)


def fingerprints(root: Path, parts: Sequence[Dataset]) -> list[str]:
    """Return the data's fingerprint, followed by those under which earlier versions knew it.

    It covers names and sizes of image files in the set's own folder, and the fields of a JSON that
    are read. Its other fields and its layout may change. Earlier versions took the names from
    --data, which may be a folder of all data, and before that the size of the JSON.
    """
    contents = {file: both for part in parts for file, both in part.contents.items()}
    files = sizes(root, {file for part in parts for file in part.files})
    jsons = sizes(root, contents)
    inside = any(in_all_data(file, parts[0].folder) for file, _ in files)
    current, by_size = [], []
    for k in range(2 if parts[0].folder else 1):
        images, lists = (
            [(both_names(file, parts[0].folder, inside=inside)[k], size) for file, size in listed]
            for listed in (files, jsons)
        )
        digest = of_sizes(images)
        if contents:
            text = json.dumps([digest, *sorted(both[k] for both in contents.values())])
            digest = hashlib.sha256(text.encode()).hexdigest()
            by_size.append(of_sizes([*images, *lists]))
        current.append(digest)
    return current + by_size


def in_all_data(name: str, folder: str) -> bool:
    """Return whether a name begins with the set's folder, as where --data holds several sets."""
    return bool(folder) and name.startswith(f"{folder}/")


def both_names(name: str, folder: str, *, inside: bool) -> tuple[str, str]:
    """Return a file's name in the set's own folder, and in a folder of all data.

    Args:
        name: relative to --data, absolute outside of it.
        inside: --data is a folder of all data.
    """
    outer = name if inside or os.path.isabs(name) else f"{folder}/{name}"
    return name.removeprefix(f"{folder}/"), outer


def contents_of(parts: Sequence[Dataset]) -> dict[str, str]:
    """Return digests of what the fingerprint does not cover (core/contents.py): labels, images."""

    def images(own: Samples) -> str:
        return of_sample(len(own), lambda i: head(own[i].path))

    digests = (images(part.samples) for part in parts)
    return {"labels": joined(part.labels for part in parts), "images": joined(digests)}


def header(name: str, sample: Sample) -> bytes:
    """Return what a digest begins an image with."""
    about = [name, sample.image_id, sample.width, sample.height, len(sample.classes)]
    return json.dumps(about).encode()


def packed(sample: Sample) -> bytes:
    """Return all that training uses of an image's objects."""
    values = [v.tobytes() for v in (sample.boxes, sample.classes, sample.crowd)]
    for outline in sample.segments or []:
        if isinstance(outline, dict):
            parts = [outline["counts"]]
        else:
            parts = [part.tobytes() for part in outline]
        values += [json.dumps([*map(len, parts)]).encode(), *parts]
    return b"".join(values)


def labels_of(class_names: Sequence[str], samples: Iterable[Sample]) -> str:
    """Return a digest of the classes and of everything that is read of the annotations."""
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for sample in samples:
        digest.update(header("", sample) + packed(sample) + sample.difficult.tobytes())
    return digest.hexdigest()


def files_by_stem(folder: Path, suffixes: Container[str]) -> dict[str, list[str]]:
    """Return {stem: [names]} of a folder's files with one of these suffixes, in capitals or not."""
    names: dict[str, list[str]] = {}
    for name in sorted(file_names(folder)):
        stem, dot, suffix = name.rpartition(".")
        if dot and f".{suffix.lower()}" in suffixes:
            names.setdefault(stem, []).append(name)
    return names


def file_names(folder: Path) -> set[str]:
    """Return the names in a folder by one listing: single look-ups take minutes over a network."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def class_indices(values: Iterable[Any], mapping: Mapping[Any, int]) -> NDArray[np.int64]:
    """Return the class indices of category ids or names."""
    return np.array([mapping[value] for value in values], dtype=np.int64)
