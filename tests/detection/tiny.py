"""Tiny VOC and COCO trees for tests: gray noise with bright rectangles, in the true formats."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [
    (60, 44),
    (44, 60),
    (52, 52),
    (61, 45),
    (45, 61),
    (70, 40),
]  # width, height: both orientations, odd numbers


def draw_image(path: Path, size: tuple[int, int], boxes, seed: int) -> None:
    """Noise with one bright rectangle per box."""
    pixels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[int(y0) : int(y1), int(x0) : int(x1), k % 3] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")  # for any suffix: decoded alike everywhere


def boxes_of(k: int, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """One or two boxes (0-based xyxy) inside an image, by formula."""
    width, height = size
    first = (3 + k % 5, 4 + k % 3, width // 2 + k % 4, height // 2 + 3)
    second = (width // 2, height // 2, width - 2, height - 1)
    return [first] if k % 3 == 0 else [first, second]


def xml(size, objects) -> str:
    """A VOC annotation; `objects` are (name, 0-based box, difficult)."""
    things = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), difficult in objects
    )
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{head}{things}</annotation>"


def voc(root: Path, train: int = 6, test: int = 4, years=("VOC2007", "VOC2012")) -> Path:
    """Write VOC2007 trainval and test, VOC2012 trainval, with cats and dogs, some difficult."""
    for year in years:
        folder = root / year
        splits = {"trainval": train} | ({"test": test} if year == "VOC2007" else {})
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        (folder / "Annotations").mkdir()
        number = 0
        for split, count in splits.items():
            ids = []
            for _ in range(count):
                number += 1
                image_id, size = f"{number:06d}", SIZES[number % len(SIZES)]
                boxes = boxes_of(number, size)
                draw_image(folder / "JPEGImages" / f"{image_id}.jpg", size, boxes, number)
                objects = [
                    (("cat", "dog")[(number + k) % 2], box, int(k == 1 and number % 4 == 0))
                    for k, box in enumerate(boxes)
                ]
                (folder / "Annotations" / f"{image_id}.xml").write_text(xml(size, objects))
                ids.append(image_id)
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return root


def coco_json(count: int, first: int = 1) -> dict:
    """Return the JSON of `count` images with polygons, both run-length codes and a crowd."""
    images, annotations = [], []
    for number in range(first, first + count):
        width, height = SIZES[number % len(SIZES)]
        images.append(
            {"id": number, "file_name": f"{number:012d}.jpg", "width": width, "height": height}
        )
        for k, (x0, y0, x1, y1) in enumerate(boxes_of(number, (width, height))):
            # Coordinates with a fraction, as COCO has them: Detectron2 cuts those of all-integer
            # lists to whole pixels when it resizes (it scales them in place); our reader makes them
            # floats for both engines.
            middle, left, top = (x0 + x1) / 2, x0 + 0.25, y0 + 0.5
            whole = [left, top, x1, top, x1, y1, left, y1]
            parts = [
                [left, top, middle - 1, top, middle - 1, y1, left, y1],
                [middle + 1, top, x1, top, x1, y1, middle + 1, y1],
            ]
            crowd = int(k == 1 and number % 5 == 0)
            if crowd or (k == 1 and number % 2):
                mask = np.zeros((height, width), dtype=np.uint8)
                mask[y0:y1, x0:x1] = 1
                outline = rle(mask)
            else:
                outline = [whole] if number % 2 else parts
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": (7, 3)[(number + k) % 2],
                    "bbox": [left, top, x1 - left, y1 - top],
                    "area": float((x1 - x0) * (y1 - y0)),
                    "iscrowd": crowd,
                    "segmentation": outline,
                }
            )
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def rle(mask) -> dict:
    """COCO's uncompressed run-length code: column by column, starting with a run of zeros."""
    values = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(values)) + 1
    runs = np.diff([0, *edges.tolist(), len(values)]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if values[0] else []) + runs}


def coco(root: Path, train: int = 6, test: int = 4) -> Path:
    """annotations/, train2017/ and val2017/ in `root`."""
    (root / "annotations").mkdir(parents=True)
    for split, count, first in (("train", train, 1), ("val", test, 101)):
        content = coco_json(count, first)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        for image in content["images"]:
            mine = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
            boxes = [(x, y, x + w, y + h) for x, y, w, h in mine]
            draw_image(
                root / f"{split}2017" / image["file_name"],
                (image["width"], image["height"]),
                boxes,
                image["id"],
            )
    return root


def cityscapes(root: Path, train: int = 3, val: int = 3) -> Path:
    """leftImg8bit/ and gtFine/ in `root`, with every oddity of instanceIds in each image."""
    for split, count, city in (("train", train, "aachen"), ("val", val, "lindau")):
        for k in range(count):
            stem = f"{split}/{city}/{city}_{k:06d}_000019"
            ids = np.full((60, 90), 7, dtype=np.uint16)  # road
            ids[0:2], ids[58:] = 3, 1  # out of the region of interest, ego vehicle
            ids[10 + k : 30, 0:12] = 24000  # a person at the left edge
            ids[20:40, 8:20] = 26000 + k  # a car over it
            ids[5:50, 60:75] = 26010  # a car in two parts
            ids[20:30, 55:80] = 17  # behind a pole
            ids[2:57, 84:90] = 33001  # a bicycle at the right edge, with a hole
            ids[10:20, 86:88] = 7
            ids[40:52, 25:45] = 26  # a group of cars
            ids[3:9, 30:50] = 29001  # a caravan, which is not evaluated
            ids[55, 20:40] = 25001  # a rider one pixel high
            ids[54:57, 50:54] = 24002  # a person of few pixels
            image = root / "leftImg8bit" / f"{stem}_leftImg8bit.png"
            draw_image(image, (90, 60), [(8, 20, 20, 40), (60, 5, 75, 50)], k)
            target = root / "gtFine" / f"{stem}_gtFine_instanceIds.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(target)
    return root


def replaced(path: str, text: str):
    """Return a function of a tree that gives one of its files this text."""
    return lambda root: (root / path).write_text(text)
