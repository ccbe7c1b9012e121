"""Cityscapes' instances, the masks that Detectron2 reads from `*_gtFine_instanceIds.png`.

Semantics of D2:data/datasets/cityscapes.py with from_json=False, to_polygons=False: an id from 1000
on is an object, a smaller one a group (a crowd).

paper: `cityscapes_fine_instance_seg_*` as Detectron2 registers it has the outlines of
`*_gtFine_polygons.json`, grown by half a pixel; here: the pixels; because the benchmark scores
these, overlaps are resolved in them, and polygons need shapely. The boxes are those of the outlines
(test_cityscapes.py): they end after the last row and column inside, where Detectron2's reader of
instanceIds ends a pixel earlier and leaves out objects of one row or column.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.ndimage import find_objects

from harl_bench.core.cityscapes import HOMES, IMAGE, INSTANCES, LARGEST, THINGS, TRUTH, home, pairs
from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.images import read_label
from harl_bench.core.lookup import unknown
from harl_bench.core.progress import Tracker
from harl_bench.detection.datasets.coco_layout import from_root
from harl_bench.detection.datasets.sample import Dataset, Sample, Samples, Segment, labels_of

SPLITS = {f"cityscapes_fine_instance_seg_{split}": split for split in ("train", "val")}
IDS, CLASS_NAMES = tuple(THINGS), tuple(THINGS.values())
NUMBERED = 1000  # label * 1000 + number is one object, label alone a group
Ids = NDArray[np.uint16]


def read(root: Path, name: str) -> Dataset:
    """Read one split by Detectron2's name, `cityscapes_fine_instance_seg_train` or `..._val`.

    Args:
        root: holds leftImg8bit/ and gtFine/, or cityscapes/ that does.

    Raises:
        DataError: an image or its instanceIds are missing, unreadable, or hold ids of no label.
        UsageError: there is no split of this name.
    """
    if name not in SPLITS:
        raise UsageError(unknown(name, SPLITS, "Cityscapes split"))
    paths = pairs(home(root), SPLITS[name], INSTANCES)
    samples = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Tracker(f"read instances of {SPLITS[name]}", len(paths), unit="images") as tracker,
    ):
        for sample in pool.map(_sample, paths):
            samples.append(sample)
            tracker.advance()
    return Dataset(
        name=name,
        root=root,
        class_names=CLASS_NAMES,
        samples=Samples(samples),
        files=sorted(from_root(Path(path), root) for pair in paths for path in pair),
        category_ids=IDS,
        bitmasks=True,
        folder=HOMES[0],
        labels=labels_of(CLASS_NAMES, samples),
    )


def instance_ids(image: str) -> Ids:
    """Return the instanceIds [H, W] that belong to an image, by its path.

    Raises:
        UnreadableError: they cannot be decoded.
        DataError: some are of no label.
    """
    path = Path(image)
    city = path.parents[3] / TRUTH / path.parent.relative_to(path.parents[2])
    return _read(str(city / f"{path.name.removesuffix(IMAGE)}{INSTANCES}"))


def _read(path: str) -> Ids:
    ids = read_label(path)
    present = np.flatnonzero(np.bincount(ids.ravel())).tolist()
    if outside := [value for value in present if _label(value) > LARGEST]:
        raise DataError(
            "instanceIds of no label",
            where=path,
            seen=", ".join(map(str, outside[:6])),
            next="replace it by the original file",
        )
    return ids.astype(np.uint16)


def _label(value: int) -> int:
    return value // NUMBERED if value >= NUMBERED else value


def _sample(paths: tuple[str, str]) -> Sample:
    """Return an image with its objects by ascending id."""
    image, truth = paths
    ids = _read(truth)
    upright = np.asfortranarray(ids)  # in the order of run lengths, down the columns
    boxes, classes, crowd = [], [], []
    outlines: list[Segment] = []
    for value, window in enumerate(find_objects(ids), start=1):
        if window is None or _label(value) not in THINGS:
            continue
        rows, columns = window
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
        classes.append(IDS.index(_label(value)))
        crowd.append(value < NUMBERED)
        outlines.append(_run_lengths(upright[:, columns] == value, columns.start, ids.shape))
    return Sample(
        path=image,
        image_id=Path(image).name,
        width=ids.shape[1],
        height=ids.shape[0],
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        classes=np.array(classes, dtype=np.int64),
        crowd=np.array(crowd, dtype=bool),
        difficult=np.zeros(len(boxes), dtype=bool),
        segments=outlines,
    )


def _run_lengths(inside: NDArray[np.bool_], left: int, size: tuple[int, ...]) -> dict[str, Any]:
    """Return COCO's compressed code of a mask of which whole columns [H, w] from `left` are given.

    It equals pycocotools' `encode` of the whole mask, which takes twenty times as long.
    """
    height, width = size
    edges = np.flatnonzero(np.diff(inside.ravel("F").astype(np.int8), prepend=0, append=0))
    ends = np.unique([*(edges + left * height), height * width])
    code = {"size": [height, width], "counts": np.diff(ends, prepend=0).tolist()}
    packed: dict[str, Any] = coco_mask.frPyObjects(code, height, width)
    return packed
