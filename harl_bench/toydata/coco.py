"""COCO's layout: {train,val}2017 and instances JSON with multi-part polygons, both kinds of RLE,
and crowds.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours

from harl_bench.toydata.image import write_jpeg
from harl_bench.toydata.scene import Thing, compose, size_px
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

# COCO 2017's eighty categories with their ids, by supercategory (cocodataset.org,
# instances_val2017.json).
CATEGORIES = {
    "person": {1: "person"},
    "vehicle": {
        2: "bicycle",
        3: "car",
        4: "motorcycle",
        5: "airplane",
        6: "bus",
        7: "train",
        8: "truck",
        9: "boat",
    },
    "outdoor": {
        10: "traffic light",
        11: "fire hydrant",
        13: "stop sign",
        14: "parking meter",
        15: "bench",
    },
    "animal": {
        16: "bird",
        17: "cat",
        18: "dog",
        19: "horse",
        20: "sheep",
        21: "cow",
        22: "elephant",
        23: "bear",
        24: "zebra",
        25: "giraffe",
    },
    "accessory": {27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase"},
    "sports": {
        34: "frisbee",
        35: "skis",
        36: "snowboard",
        37: "sports ball",
        38: "kite",
        39: "baseball bat",
        40: "baseball glove",
        41: "skateboard",
        42: "surfboard",
        43: "tennis racket",
    },
    "kitchen": {
        44: "bottle",
        46: "wine glass",
        47: "cup",
        48: "fork",
        49: "knife",
        50: "spoon",
        51: "bowl",
    },
    "food": {
        52: "banana",
        53: "apple",
        54: "sandwich",
        55: "orange",
        56: "broccoli",
        57: "carrot",
        58: "hot dog",
        59: "pizza",
        60: "donut",
        61: "cake",
    },
    "furniture": {
        62: "chair",
        63: "couch",
        64: "potted plant",
        65: "bed",
        67: "dining table",
        70: "toilet",
    },
    "electronic": {
        72: "tv",
        73: "laptop",
        74: "mouse",
        75: "remote",
        76: "keyboard",
        77: "cell phone",
    },
    "appliance": {78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator"},
    "indoor": {
        84: "book",
        85: "clock",
        86: "vase",
        87: "scissors",
        88: "teddy bear",
        89: "hair drier",
        90: "toothbrush",
    },
}
ID_OF = {
    "disc": 37,
    "box": 72,
    "triangle": 9,
    "star": 64,
    "ring": 60,
}  # sports ball, tv, boat, potted plant, donut
LEAST_PART_PX = 6  # smaller specks of an occluded object are left out of its polygons
TOLERANCE_PX = 0.35  # of the polygon against the pixels' outline
Mask = NDArray[np.bool_]


def write(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write images and `instances_<split>2017.json` for each split."""
    for split, count in counts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            names = [str(n) for n in random.choice(NAMES, int(random.integers(1, 4)))]
            group = bool(random.random() < 0.15)
            scene = compose(
                random,
                names,
                size=size_px(random, side_px),
                radii=(0.12, 0.42),
                tiny=0.05,
                group=group,
            )
            number = (len(counts) * 1000 if split == "val" else 1000) + i
            file = f"{number:012d}.jpg"
            write_jpeg(root / f"{split}2017" / file, scene.image, random)
            height, width = scene.image.shape[:2]
            images.append(
                {
                    "license": 1,
                    "file_name": file,
                    "coco_url": "",
                    "height": height,
                    "width": width,
                    "date_captured": "2026-01-01 00:00:00",
                    "flickr_url": "",
                    "id": number,
                }
            )
            for thing in scene.things:
                annotations.append(annotation(thing, image_id=number, id_=len(annotations) + 1))
        _write_json(root / "annotations" / f"instances_{split}2017.json", images, annotations)


def annotation(thing: Thing, *, image_id: int, id_: int) -> dict[str, Any]:
    """One annotation: xywh box, area in pixels, and the segmentation that suits the thing."""
    encoded = rle.encode(np.asfortranarray(thing.visible.astype(np.uint8)))
    x1, y1, x2, y2 = thing.box
    return {
        "segmentation": segmentation(thing, id_),
        "area": float(rle.area(encoded)),
        "iscrowd": int(thing.crowd),
        "image_id": image_id,
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "category_id": ID_OF[thing.name],
        "id": id_,
    }


def segmentation(thing: Thing, id_: int) -> list[list[float]] | dict[str, Any]:
    """Polygons, one per visible part; RLE where polygons cannot say it (holes), uncompressed for
    crowds as in COCO.
    """
    if thing.crowd:
        return uncompressed(thing.visible)
    parts = polygons(thing.visible)
    if parts and not (ndimage.binary_fill_holes(thing.visible) & ~thing.visible).any():
        return parts
    if id_ % 2:
        return uncompressed(thing.visible)
    encoded = rle.encode(np.asfortranarray(thing.visible.astype(np.uint8)))
    return {"size": [int(n) for n in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def uncompressed(mask: Mask) -> dict[str, Any]:
    """Run lengths down the columns, beginning with zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def polygons(mask: Mask) -> list[list[float]]:
    """The outline of each connected part as x, y, x, y, ... in pixel-corner coordinates."""
    labels, count = ndimage.label(mask)
    found = []
    for part in range(1, count + 1):
        inside = np.pad(labels == part, 1)
        if inside.sum() < LEAST_PART_PX:
            continue
        outline = max(find_contours(inside.astype(float), 0.5), key=len)
        corners = (
            approximate_polygon(outline, TOLERANCE_PX)[:-1, ::-1] - 0.5
        )  # row, column of the padded centres to x, y
        if len(corners) >= 3:
            limits = (mask.shape[1], mask.shape[0])
            found.append(np.clip(corners, 0, limits).round(2).ravel().tolist())
    return found


def _write_json(
    path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> None:
    content = {
        "info": {
            "description": "harl-bench toy data in COCO 2017's layout",
            "url": "",
            "version": "1.0",
            "year": 2026,
            "contributor": "harl-bench",
            "date_created": "2026/01/01",
        },
        "licenses": [{"url": "", "id": 1, "name": "generated"}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"supercategory": group, "id": id_, "name": name}
            for group, members in CATEGORIES.items()
            for id_, name in members.items()
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
