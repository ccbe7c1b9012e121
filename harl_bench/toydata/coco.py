"""COCO's layout: {train,val}2017, instances JSON with polygons, both kinds of RLE, and crowds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from harl_bench.toydata.scene import Mask, Thing, compose
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

# COCO 2017's eighty categories in the order of their ids (cocodataset.org, instances_val2017.json).
CATEGORIES = {
    "person": "person",
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "outdoor": "traffic light, fire hydrant, stop sign, parking meter, bench",
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "accessory": "backpack, umbrella, handbag, tie, suitcase",
    "sports": "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket",
    "kitchen": "bottle, wine glass, cup, fork, knife, spoon, bowl",
    "food": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake",
    "furniture": "chair, couch, potted plant, bed, dining table, toilet",
    "electronic": "tv, laptop, mouse, remote, keyboard, cell phone",
    "appliance": "microwave, oven, toaster, sink, refrigerator",
    "indoor": "book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
}
IDS = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
# sports ball, tv, boat, potted plant, donut
ID_OF = {"disc": 37, "box": 72, "triangle": 9, "star": 64, "ring": 60}
LEAST_PART_PX = 6  # smaller specks of an occluded object are left out of its polygons
TOLERANCE_PX = 0.35  # of the polygon against the pixels' outline
INFO = {
    "description": "harl-bench toy data in COCO 2017's layout",
    "url": "",
    "version": "1.0",
    "year": 2026,
    "contributor": "harl-bench",
    "date_created": "2026/01/01",
}


def write(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write images and `instances_<split>2017.json` for each split."""
    (root / "annotations").mkdir(exist_ok=True)
    for split, count in counts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        first = {"train": 1000, "val": 2000}[split]
        for id_ in range(first, first + count):
            path = root / f"{split}2017" / f"{id_:012d}.jpg"
            names = random.choice(NAMES, random.integers(1, 3))
            group = random.random() < 0.15
            height, width, things = compose(path, names, side_px, random, (0.3, 0.46), 0.03, group)
            images.append(
                {
                    "license": 1,
                    "file_name": path.name,
                    "coco_url": "",
                    "height": height,
                    "width": width,
                    "date_captured": "2026-01-01 00:00:00",
                    "flickr_url": "",
                    "id": id_,
                }
            )
            for thing in things:
                annotations.append(_annotation(thing, image_id=id_, id_=len(annotations) + 1))
        content = {
            "info": INFO,
            "licenses": [{"url": "", "id": 1, "name": "generated"}],
            "images": images,
            "annotations": annotations,
            "categories": _categories(),
        }
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def _categories() -> list[dict[str, Any]]:
    names = [(group, name) for group, names in CATEGORIES.items() for name in names.split(", ")]
    return [
        {"supercategory": group, "id": id_, "name": name}
        for id_, (group, name) in zip(IDS, names, strict=True)
    ]


def _annotation(thing: Thing, *, image_id: int, id_: int) -> dict[str, Any]:
    """Return an object's record: polygons, or RLE where it has holes, uncompressed for crowds."""
    segmentation: Any = polygons(thing.visible)
    holes = (ndimage.binary_fill_holes(thing.visible) & ~thing.visible).any()
    if thing.crowd or holes or not segmentation:
        segmentation = uncompressed(thing.visible)
        if id_ % 2 == 0 and not thing.crowd:
            segmentation = rle.frPyObjects(segmentation, *segmentation["size"])
            segmentation["counts"] = segmentation["counts"].decode("ascii")
    return {
        "segmentation": segmentation,
        "area": float(thing.visible.sum()),
        "iscrowd": int(thing.crowd),
        "image_id": image_id,
        "bbox": [float(n) for n in thing.box],
        "category_id": ID_OF[thing.name],
        "id": id_,
    }


def uncompressed(mask: Mask) -> dict[str, Any]:
    """Return run lengths down the columns, beginning with zeros."""
    changes = np.flatnonzero(np.diff(mask.ravel("F").astype(np.int8), prepend=0, append=2))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


def polygons(mask: Mask) -> list[list[float]]:
    """Return the outline of each connected part as x, y, x, y, ... in pixel-corner coordinates."""
    labels, count = ndimage.label(mask)
    polygons = []
    for part in range(1, count + 1):
        inside = np.pad(labels == part, 1)
        if inside.sum() < LEAST_PART_PX:
            continue
        outline = max(find_contours(inside.astype(float), 0.5), key=len)
        # Rows and columns of padded pixel centers become x, y of pixel corners.
        corners = approximate_polygon(outline, TOLERANCE_PX)[:-1, ::-1] - 0.5
        if len(corners) >= 3:
            polygons.append(np.clip(corners, 0, mask.shape[::-1]).round(2).ravel().tolist())
    return polygons
