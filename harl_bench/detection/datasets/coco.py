"""COCO instances, read as Detectron2 does: instances_<split><year>.json and <split><year>/.

Semantics of D2:data/datasets/coco.py: images by ascending id, category ids in sorted order become
0..K-1. Polygon parts of fewer than 3 points are dropped, and with them an object that has no other.
Polygons stay polygons and run-length codes stay compressed, so memory does not grow with the
objects' area.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.core.images import MAX_PIXELS
from harl_bench.core.plain import read_plain
from harl_bench.detection.datasets.coco_layout import ImageFiles, files_of, from_root
from harl_bench.detection.datasets.coco_truth import GroundTruth
from harl_bench.detection.datasets.outlines import read_outline
from harl_bench.detection.datasets.sample import (
    SCORED_TWICE,
    TRAINED_TWICE,
    Dataset,
    Sample,
    Samples,
    Segment,
    both_names,
    class_indices,
    count_boxes,
    count_fault,
    header,
    in_all_data,
    packed,
)

FOLDER = "coco"  # in a folder of all data
LARGEST = 1e9  # px; larger values are nonsense, or integers that no float holds


def read(root: Path, name: str, *, masks: bool = True, scored: bool = False) -> Dataset:
    """Read one split by Detectron2's name, `coco_2017_train` or `coco_2014_minival`.

    Args:
        root: holds annotations/ and train2017/, val2017/, or a folder coco/ that does.
        masks: keep the objects' outlines; every object must then have one.
        scored: a test split; every annotation must have the metric's fields, area and iscrowd.

    Raises:
        DataError: the JSON or an image is missing, or the JSON is broken or contradicts itself.
    """
    path, folder = files_of(root, name)
    content = _load(path)
    category_ids, class_names = _categories(content, path)
    indices = {category_id: i for i, category_id in enumerate(category_ids)}
    images = {image["id"]: image for image in _unique(content, "images", path)}
    if not images:
        raise DataError("no images are listed", where=path, seen='"images" is empty')
    objects: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in images}
    faults: dict[str, int] = {}
    # Detectron2 accepts the ids that the two lists of 2014 hold twice (D2:data/datasets/coco.py:
    # 118-124). Its evaluator takes the last of two for both. Here each is counted, because the
    # metric gets new ids.
    for annotation in _unique(content, "annotations", path, repeated="minival" in path.name):
        _check(annotation, indices, path, scored=scored)
        if annotation["image_id"] in objects:
            objects[annotation["image_id"]].append(annotation)
        else:
            count_fault(faults, "annotations of images that the file does not list, skipped")
    files, samples, truth = ImageFiles(folder, name), [], GroundTruth()
    start = json.dumps([category_ids, class_names]).encode()
    digests, paths = (hashlib.sha256(start), hashlib.sha256(start)), set[str]()
    listed = from_root(path, root)
    for image_id in sorted(images):
        image = _image(images[image_id], path)
        file = files.path(image["file_name"])
        relative = from_root(file, root)
        if relative in paths:
            count_fault(faults, SCORED_TWICE if scored else TRAINED_TWICE)
        paths.add(relative)
        rows = list(_outlined(objects[image_id], image, masks, faults, path))
        sample = _sample(image, rows, str(file), indices, masks, faults)
        samples.append(sample)
        names = both_names(relative, FOLDER, inside=in_all_data(listed, FOLDER))
        objects_bytes = packed(sample)
        for digest, file_name in zip(digests, names, strict=True):
            digest.update(header(file_name, sample) + objects_bytes)
        if scored:
            truth.add(image, rows, indices, masks, faults)
    ground_truth = None
    if scored:
        ground_truth = truth.to_json(tuple(sorted(images)), category_ids, class_names)
        for digest in digests:
            digest.update(ground_truth.content)
    outlines = (pair for s in samples for pair in zip(s.segments or [], s.crowd, strict=False))
    return Dataset(
        name=name,
        root=root,
        class_names=class_names,
        samples=Samples(samples),
        files=sorted(paths),
        faults=faults,
        category_ids=category_ids,
        bitmasks=any(isinstance(outline, dict) and not crowd for outline, crowd in outlines),
        truth=ground_truth,
        folder=FOLDER,
        contents={listed: (digests[0].hexdigest(), digests[1].hexdigest())},
        labels=digests[0].hexdigest(),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "broken COCO JSON", where=path, seen=error, next="unpack it again"
        ) from None
    content = content if isinstance(content, dict) else {}
    keys = ("images", "annotations", "categories")
    if missing := [key for key in keys if not _list_of_dicts(content.get(key))]:
        raise DataError("COCO JSON lacks a list", where=path, seen=f"no list {', '.join(missing)}")
    return content


def _list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _categories(content: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    categories = {category["id"]: category for category in _unique(content, "categories", path)}
    ids = tuple(sorted(categories))
    if unnamed := [c for c in categories.values() if not isinstance(c.get("name"), str)]:
        raise DataError("a category needs a name", where=path, seen=_short(unnamed[0]))
    names = tuple(str(categories[i]["name"]) for i in ids)
    if not ids:
        raise DataError("no categories are listed", where=path, seen='"categories" is empty')
    if len(set(names)) != len(names):
        raise DataError("two categories have the same name", where=path, seen=sorted(names))
    return ids, names


def _unique(
    content: Mapping[str, Any], key: str, path: Path, *, repeated: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a list's entries, whose ids are whole numbers and, unless `repeated`, different."""
    ids = set[int]()
    for item in content[key]:
        number = _integer(item.get("id"))
        if number is None:
            what = f'"{key}" has an entry without a whole number as id'
            raise DataError(what, where=path, seen=_short(item))
        if number in ids and not repeated:
            what = f'"{key}" has an id twice'
            raise DataError(what, where=path, seen=number, next="give each its own id")
        ids.add(number)
        item["id"] = number
        yield item


def _check(
    annotation: dict[str, Any], indices: Mapping[int, int], path: Path, *, scored: bool
) -> None:
    """Require ids, a box, iscrowd and, in a test split, area. Ids become integers."""
    box, seen = annotation.get("bbox"), f"annotation {annotation['id']}"
    image_id = _integer(annotation.get("image_id"))
    category_id = _integer(annotation.get("category_id"))
    if image_id is None:
        raise DataError("annotation without image_id", where=path, seen=seen)
    if category_id not in indices:
        what, hint = "annotation of an unknown category", 'fix the list "categories"'
        seen = f"category_id {annotation.get('category_id')!r} in {seen}"
        raise DataError(what, where=path, seen=seen, next=hint)
    if not (isinstance(box, list) and len(box) == 4 and all(_finite(x) for x in box)):
        raise DataError("bbox must be four numbers", where=path, seen=f"{box} in {seen}")
    if annotation.get("ignore", 0):  # Detectron2 refuses it too
        raise DataError('"ignore" is not part of COCO', where=path, seen=seen)
    if scored and not (_finite(annotation.get("area")) and "iscrowd" in annotation):
        what = "a test annotation needs area and iscrowd"
        raise DataError(what, where=path, seen=seen, next="add them")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError("iscrowd must be 0 or 1", where=path, seen=f"{crowd!r} in {seen}")
    annotation |= {"image_id": image_id, "category_id": category_id, "iscrowd": int(crowd)}


def _image(image: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return an image's id, file_name, and width and height as integers."""
    name, seen = image.get("file_name"), _short(image)
    width, height = (_integer(image.get(side)) for side in ("width", "height"))
    if not isinstance(name, str) or not width or not height or min(width, height) < 1:
        raise DataError("an image needs file_name, width and height", where=path, seen=seen)
    if width * height > MAX_PIXELS:
        hint = f"below {MAX_PIXELS:,} pixels"
        raise DataError("image is too large", where=path, seen=seen, next=hint)
    return {"id": image["id"], "file_name": name, "width": width, "height": height}


def _outlined(
    annotations: list[dict[str, Any]],
    image: dict[str, Any],
    masks: bool,
    faults: dict[str, int],
    path: Path,
) -> Iterator[tuple[dict[str, Any], Segment | None]]:
    """Yield annotations with their outlines, None where no polygon has three points."""
    for annotation in annotations:
        seen, segmentation = f"annotation {annotation['id']}", annotation.get("segmentation")
        outline: Segment | None = []
        if segmentation:

            def refuse(why: str, seen: str = seen) -> DataError:
                return DataError(f"segmentation {why}", where=path, seen=seen)

            outline = read_outline(segmentation, (image["height"], image["width"]), refuse) or None
            if outline is None:
                count_fault(faults, "objects whose polygons have fewer than 3 points, skipped")
        elif masks and not annotation["iscrowd"]:
            hint = "add the override MODEL.MASK_ON=False"
            raise DataError("an object has no segmentation", where=path, seen=seen, next=hint)
        yield annotation, outline


def _sample(
    image: dict[str, Any],
    rows: list[tuple[dict[str, Any], Segment | None]],
    path: str,
    indices: Mapping[int, int],
    masks: bool,
    faults: dict[str, int],
) -> Sample:
    annotations = [annotation for annotation, outline in rows if outline is not None]
    # Width to corner in float32, as Detectron2's BoxMode.convert does: both engines get the same
    # last bit.
    corners = np.array([a["bbox"] for a in annotations], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    boxes = corners.astype(np.float64)
    crowd = np.array([a["iscrowd"] for a in annotations], dtype=bool)
    count_boxes(faults, boxes[~crowd], image["width"], image["height"])
    return Sample(
        path=path,
        image_id=image["id"],
        width=image["width"],
        height=image["height"],
        boxes=boxes,
        classes=class_indices((a["category_id"] for a in annotations), indices),
        crowd=crowd,
        difficult=np.zeros(len(annotations), dtype=bool),
        segments=[outline for _, outline in rows if outline is not None] if masks else None,
    )


def _integer(value: Any) -> int | None:
    """Return a whole number, also where a tool wrote 640.0, else None."""
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value if type(value) is int else None


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _short(item: object) -> str:
    text = str(item)
    return text if len(text) < 120 else f"{text[:117]}..."
