"""COCO instances: annotations/instances_<split><year>.json and <split><year>/, read as Detectron2 does.

Semantics of D2:data/datasets/coco.py: pictures by ascending id, category ids in sorted order become 0..K-1, polygon
parts of fewer than 3 points are dropped, and an object whose polygons are all gone with them. Polygons stay polygons
and run-length codes stay compressed, so memory does not grow with the objects' area.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.core.plain import read_plain
from harl_bench.detection.datasets.sample import Dataset, Sample, Samples, Segment, count_boxes, file_names, numbers

LARGEST = 1e9  # px; beyond it lies only nonsense, and integers that no float holds
ARCHIVES = {"coco_2017_train": "train2017.zip", "coco_2017_val": "val2017.zip"}


def read(root: Path, name: str, *, masks: bool = True, scored: bool = False) -> Dataset:
    """One split, named as Detectron2 names it: `coco_2017_train`, `coco_2017_val`.

    Args:
        root: holds annotations/ and train2017/, val2017/, or a folder coco/ that does.
        masks: keep the objects' outlines; every object must then have one.
        scored: this is a test split; every annotation must have what pycocotools reads (area, iscrowd).

    Raises:
        DataError: the JSON or a picture is missing, or the JSON is broken or contradicts itself.
    """
    _, year, split = name.split("_", 2)
    base = _base(root, split, year)
    path, folder = base / "annotations" / f"instances_{split}{year}.json", base / f"{split}{year}"
    content = _load(path)
    if not folder.is_dir():
        hint = f"unpack {ARCHIVES.get(name, 'the pictures')} there"
        raise DataError(f"picture folder {folder.name} is missing", where=folder, next=hint)
    category_ids, class_names = _categories(content, path)
    indices = {category_id: i for i, category_id in enumerate(category_ids)}
    images = _unique(content, "images", path)
    if not images:
        raise DataError("no pictures are listed", where=path, seen='"images" is empty')
    objects: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    faults: dict[str, int] = {}
    for annotation in _unique(content, "annotations", path).values():
        _check(annotation, indices, path)
        if scored and not (_finite(annotation.get("area")) and annotation.get("iscrowd") in (0, 1)):
            seen = f"annotation {annotation['id']}"
            raise DataError("a test annotation needs area and iscrowd", where=path, seen=seen, next="add them")
        if annotation["image_id"] in objects:
            objects[annotation["image_id"]].append(annotation)
        else:
            _count(faults, "annotations of pictures that the file does not list, skipped")
    there = file_names(folder)
    samples = []
    for image_id in sorted(images):
        image = images[image_id]
        if not isinstance(image.get("file_name"), str) or not _sized(image):
            raise DataError("a picture needs file_name, width and height", where=path, seen=image)
        # A name with a folder part is not in the listing: ask for it.
        if image["file_name"] not in there and not (folder / image["file_name"]).is_file():
            raise DataError(
                "picture is missing", where=folder / image["file_name"], seen=f"{len(there)} files in {folder.name}",
                next=f"unpack {ARCHIVES.get(name, 'the pictures')} completely",
            )  # fmt: skip
        samples.append(_sample(image, objects[image_id], folder, indices, masks, faults, path))
    files = [str(path.relative_to(root))] + [str((folder / i["file_name"]).relative_to(root)) for i in images.values()]
    outlines = (pair for s in samples for pair in zip(s.segments or [], s.crowd, strict=False))
    coded = any(isinstance(outline, dict) and not crowd for outline, crowd in outlines)
    return Dataset(name, root, class_names, Samples(samples), files, faults, path, category_ids, masks and coded)


def _base(root: Path, split: str, year: str) -> Path:
    bases = (root, root / "coco")
    for base in bases:
        if (base / "annotations" / f"instances_{split}{year}.json").is_file():
            return base
    for base in bases:
        if (base / "annotations").is_dir():
            there = ", ".join(sorted(file_names(base / "annotations"))[:6]) or "an empty folder"
            where = base / "annotations" / f"instances_{split}{year}.json"
            raise DataError(
                f"COCO {split}{year} annotations are missing", where=where, seen=there,
                next=f"unpack annotations_trainval{year}.zip there",
            )  # fmt: skip
    there = ", ".join(sorted(file_names(root))[:6]) or "an empty folder"
    raise DataError(
        "no COCO data", where=root, seen=there,
        next=f"give the folder that holds annotations/instances_{split}{year}.json and {split}{year}/",
    )  # fmt: skip


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("broken COCO JSON", where=path, seen=error, next="unpack it again") from None
    missing = [key for key in ("images", "annotations", "categories") if not _list_of_dicts(content, key)]
    if missing:
        raise DataError("COCO JSON lacks a list", where=path, seen=f"no list {', '.join(missing)}")
    return dict(content)


def _list_of_dicts(content: Any, key: str) -> bool:
    items = content.get(key) if isinstance(content, dict) else None
    return isinstance(items, list) and all(isinstance(item, dict) for item in items)


def _categories(content: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    categories = _unique(content, "categories", path)
    ids = tuple(sorted(categories))
    unnamed = next((item for item in categories.values() if not isinstance(item.get("name"), str)), None)
    if unnamed is not None:
        raise DataError("a category needs a name", where=path, seen=_short(unnamed))
    names = tuple(str(categories[i]["name"]) for i in ids)
    if not ids:
        raise DataError("no categories are listed", where=path, seen='"categories" is empty')
    if len(set(names)) != len(names):
        raise DataError("two categories have the same name", where=path, seen=sorted(names))
    return ids, names


def _unique(content: Mapping[str, Any], key: str, path: Path) -> dict[int, dict[str, Any]]:
    """The list as a dict by id, in the file's order."""
    by_id: dict[int, dict[str, Any]] = {}
    for item in content[key]:
        number = item.get("id")
        if type(number) is not int:
            raise DataError(f'"{key}" has an entry without a whole number as id', where=path, seen=_short(item))
        if number in by_id:
            raise DataError(f'"{key}" has an id twice', where=path, seen=number, next="give each its own id")
        by_id[number] = item
    return by_id


def _check(annotation: dict[str, Any], indices: Mapping[int, int], path: Path) -> None:
    box = annotation.get("bbox")
    if type(annotation.get("image_id")) is not int:
        raise DataError("annotation without image_id", where=path, seen=f"annotation {annotation['id']}")
    if type(annotation.get("category_id")) is not int or annotation["category_id"] not in indices:
        seen = f"category_id {annotation.get('category_id')!r} in annotation {annotation['id']}"
        raise DataError("annotation of an unknown category", where=path, seen=seen, next='mend the list "categories"')
    if not (isinstance(box, list) and len(box) == 4 and all(_finite(x) for x in box)):
        raise DataError("bbox must be four numbers", where=path, seen=f"{box} in annotation {annotation['id']}")
    if annotation.get("ignore", 0):  # Detectron2 refuses it too
        raise DataError('"ignore" is not part of COCO', where=path, seen=f"annotation {annotation['id']}")


def _sample(
    image: dict[str, Any], objects: list[dict[str, Any]], folder: Path, indices: Mapping[int, int], masks: bool,
    faults: dict[str, int], path: Path,
) -> Sample:  # fmt: skip
    kept, segments = [], []
    for annotation in objects:
        segment = annotation.get("segmentation")
        if segment:
            parsed = _segment(segment, annotation, image, path)
            if not parsed:
                _count(faults, "objects whose polygons have fewer than 3 points, skipped")
                continue
        elif masks and not annotation.get("iscrowd", 0):
            seen = f"annotation {annotation['id']}"
            raise DataError("an object has no segmentation", where=path, seen=seen, next="use a recipe without masks")
        else:
            parsed = []
        kept.append(annotation)
        segments.append(parsed)
    # Width to corner in float32, as Detectron2's BoxMode.convert does; both engines then see the same last bit.
    corners = np.array([annotation["bbox"] for annotation in kept], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    boxes = corners.astype(np.float64)
    crowd = np.array([bool(annotation.get("iscrowd", 0)) for annotation in kept], dtype=bool)
    count_boxes(faults, boxes[~crowd], image["width"], image["height"])
    return Sample(
        path=str(folder / image["file_name"]),
        image_id=image["id"],
        width=image["width"],
        height=image["height"],
        boxes=boxes,
        classes=numbers((annotation["category_id"] for annotation in kept), indices),
        crowd=crowd,
        difficult=np.zeros(len(kept), dtype=bool),
        segments=segments if masks else None,
    )


def _segment(segment: Any, annotation: dict[str, Any], image: dict[str, Any], path: Path) -> Segment:
    """Polygons as arrays, or a compressed run-length code; [] if no polygon has three points."""

    def refuse(why: str) -> DataError:
        return DataError(f"segmentation {why}", where=path, seen=f"annotation {annotation['id']}")

    if isinstance(segment, dict):
        return _run_length(segment, image, refuse)
    if not isinstance(segment, list) or not all(isinstance(part, list) for part in segment):
        raise refuse("is neither a list of polygons nor a run-length code")
    try:
        parts = [np.array(part, dtype=np.float64) for part in segment if len(part) % 2 == 0 and len(part) >= 6]
    except (TypeError, ValueError):
        raise refuse("has a coordinate that is not a number") from None
    if not all(part.ndim == 1 and np.isfinite(part).all() for part in parts):
        raise refuse("has a coordinate that is not a finite number")
    return parts


def _run_length(code: dict[str, Any], image: dict[str, Any], refuse: Callable[[str], DataError]) -> dict[str, Any]:
    """COCO's run-length code, compressed. Its runs are summed here: pycocotools reads beyond its memory otherwise."""
    from pycocotools import mask as coco_mask

    size, counts = code.get("size"), code.get("counts")
    if size != [image["height"], image["width"]]:
        raise refuse(f"has size {size}, its picture [{image['height']}, {image['width']}]")
    if isinstance(counts, str):
        counts = _runs(counts)
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise refuse("has broken run-length counts")
    if sum(counts) != size[0] * size[1]:
        raise refuse(f"has runs over {sum(counts):,} pixels, its picture has {size[0] * size[1]:,}")
    packed: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    return packed


def _runs(text: str) -> list[int] | None:
    """Decode COCO's compressed counts (pycocotools maskApi.c, rleFrString): 5 bits a character, differences from the
    run before last after the third run. None if the text is cut short or holds other characters."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii", "replace"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if shift == 0 else None


def _sized(image: dict[str, Any]) -> bool:
    return all(type(image.get(side)) is int and image[side] > 0 for side in ("width", "height"))


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _count(faults: dict[str, int], fault: str) -> None:
    faults[fault] = faults.get(fault, 0) + 1


def _short(item: object) -> str:
    text = str(item)
    return text if len(text) < 120 else f"{text[:117]}..."
