"""One annotated image, whatever data set it came from, and a list of them that worker processes
share.

N objects of one image. Boxes are xyxy pixels, 0-based, float64, not clipped: what the annotation
file says.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.core.manifest import fingerprint
from harl_bench.core.nearby import no_data_folder
from harl_bench.core.progress import log

Polygons = list[NDArray[np.float64]]  # one object may have several parts, each x0 y0 x1 y1 ...
Segment = (
    Polygons | dict[str, Any]
)  # or a compressed COCO run-length code {"size": [H, W], "counts": bytes}

# What a test split's file says that moves its score: these faults become departures of the result.
SCORED_TWICE = "test images listed under a second id, scored twice"
BOX_AS_OUTLINE = "test objects without a usable outline, their box scored as their mask"
IN_TRAINING = "test images that are among the training images"
MOVING_SCORES = (SCORED_TWICE, BOX_AS_OUTLINE, IN_TRAINING)
TRAINED_TWICE = "images listed under a second id, seen twice an epoch"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its objects: `boxes [N, 4]`, `classes [N]` int64 (0-based), `crowd [N]`,
    `difficult [N]` bool.
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
    """A read-only list kept as one block of bytes.

    Python objects shared with forked workers are copied page by page, because reading them moves
    their reference counts; 118,287 COCO images would exist once per worker. Detectron2 packs them
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
    """What COCO's evaluators are given of a test split: JSON of validated fields, in which images,
    categories and annotations are numbered from 1; and the images' ids and the categories' ids and
    names, in that order.
    """

    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    content: bytes


@dataclass(frozen=True)
class Dataset:
    """The images of one or more splits, read. `files` (relative to `root`) make the fingerprint.

    `faults` counts what was skipped or looks odd, by sentence. `truth` is for COCO's metric, None
    for VOC and training. `contents` has a digest of what was read of each annotation file whose
    size and layout do not matter. `bitmasks` tells that an object besides crowds is outlined by a
    run-length code: Detectron2 takes either polygons or bitmasks, so both engines then draw every
    outline as a bitmask before training on it.
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
    contents: dict[str, str] = field(default_factory=dict)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Several splits as one training set, e.g. voc_2007_trainval + voc_2012_trainval, in this
    order.

    Raises:
        DataError: the parts do not have the same classes.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names:
            raise DataError("splits have different classes", where=f"{first.name} and {part.name}")
    faults: dict[str, int] = {}
    for part in parts:
        for fault, count in part.faults.items():
            faults[fault] = faults.get(fault, 0) + count
    return Dataset(
        name="+".join(part.name for part in parts),
        root=first.root,
        class_names=first.class_names,
        samples=Samples(sample for part in parts for sample in part.samples),
        files=[file for part in parts for file in part.files],
        faults=faults,
        category_ids=first.category_ids,
        bitmasks=any(part.bitmasks for part in parts),
        contents={file: content for part in parts for file, content in part.contents.items()},
    )


def for_training(dataset: Dataset) -> Dataset:
    """Drop the images that hold no object besides crowds (D2:data/build.py:46-74; COCO keeps
    117,266 of 118,287).

    Degenerate boxes do not count against an image here; the mapper drops them, as Detectron2's
    does.

    Raises:
        DataError: nothing is left.
    """
    kept = [sample for sample in dataset.samples if len(sample.classes) and not sample.crowd.all()]
    dropped = len(dataset.samples) - len(kept)
    if not kept:
        raise DataError(
            "no training image has an object",
            where=dataset.root,
            seen=f"{dropped} images of {dataset.name}",
        )
    faults = dataset.faults | (
        {"images without objects, left out of training": dropped} if dropped else {}
    )
    return replace(dataset, samples=Samples(kept), faults=faults)


def count_boxes(
    faults: dict[str, int], boxes: NDArray[np.float64], width: int, height: int
) -> None:
    """Count boxes without area (training skips them) and boxes that leave the image (training clips
    them).
    """
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2]
    empty = (sides <= 0).any(1)
    inside = np.minimum(boxes[:, 2:], (width, height)) - np.maximum(boxes[:, :2], 0)
    gone = (inside <= 0).any(1) & ~empty
    # A pixel of slack: COCO's own boxes leave the image by rounding.
    over = ((boxes < -1).any(1) | (boxes[:, 2:] > (width + 1, height + 1)).any(1)) & ~gone & ~empty
    for sentence, found in (
        ("boxes without area, skipped in training", empty),
        ("boxes wholly outside their image, skipped in training", gone),
        ("boxes partly outside their image, clipped in training", over),
    ):
        if found.any():
            faults[sentence] = faults.get(sentence, 0) + int(found.sum())


def warn_faults(dataset: Dataset) -> None:
    """One warning line per kind of oddity."""
    for fault, count in dataset.faults.items():
        log.warning("%s: %d %s", dataset.name, count, fault)


def fingerprints(root: Path, parts: Sequence[Dataset]) -> list[str]:
    """Return the data's fingerprint, and for COCO the one by which runs of earlier versions are
    known.

    What decides the outcome counts: names and sizes of image files, and what was read of a JSON.
        Its other fields and
    its layout may change. Earlier versions took the size of the JSON.
    """
    files = {file for part in parts for file in part.files}
    contents = {file: content for part in parts for file, content in part.contents.items()}
    if not contents:
        return [fingerprint(root, files)]
    digest = hashlib.sha256(
        json.dumps([fingerprint(root, files), *sorted(contents.values())]).encode()
    )
    return [digest.hexdigest(), fingerprint(root, files | contents.keys())]


def data_root(data: Path | None) -> Path:
    """The folder given by --data, else $DETECTRON2_DATASETS (Detectron2's own variable).

    Raises:
        DataError: neither names an existing folder.
    """
    named = data if data is not None else os.environ.get("DETECTRON2_DATASETS")
    if named is None:
        raise DataError("no data folder", next="give --data DIR or set DETECTRON2_DATASETS")
    root = Path(named).expanduser()
    if not root.is_dir():
        source = "--data" if data is not None else "$DETECTRON2_DATASETS"
        raise no_data_folder(root, f"from {source}")
    return root


def files_by_stem(folder: Path, suffixes: Container[str]) -> dict[str, list[str]]:
    """Return {stem: [names]} of the files in a folder that have one of these suffixes, in capitals
    or not.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(file_names(folder)):
        stem, dot, suffix = name.rpartition(".")
        if dot and f".{suffix.lower()}" in suffixes:
            found.setdefault(stem, []).append(name)
    return found


def file_names(folder: Path) -> set[str]:
    """Names in a folder, by one listing: 118,287 single look-ups take minutes on a network file
    system.
    """
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def numbers(values: Iterable[Any], mapping: Mapping[Any, int]) -> NDArray[np.int64]:
    """Class indices of category ids or names."""
    return np.array([mapping[value] for value in values], dtype=np.int64)
