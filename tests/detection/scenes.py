"""Scenes by formula with many tied scores, duplicates and strays, for both engines."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.detection import tiny

SEEDS = range(6)
NAMES = ("aeroplane", "bicycle", "bird")  # the last one never has ground truth
SIZES_PX, MAX_PX, ORDER_SEED = (40, 52, 64), 90, 5
CITY_PX = (160, 120)


def voc(seed: int, images: int = 30):
    """Return objects (id, boxes, classes, difficult), detections (id, boxes, scores, classes)."""
    generator = np.random.default_rng(seed)
    truth, detections = [], []
    for k in range(images):
        n = generator.integers(0, 5)
        corners = generator.integers(0, 60, (n, 2))
        boxes = np.concatenate([corners, corners + generator.integers(5, 40, (n, 2))], 1).astype(
            float
        )
        classes = generator.integers(0, len(NAMES) - 1, n)
        truth.append((f"{k:06d}", boxes, classes, generator.random(n) < 0.2))
        guesses = np.repeat(boxes, 2, 0) + generator.normal(0, 2.5, (2 * n, 4))
        guesses = np.concatenate([guesses, generator.random((3, 4)) * 40 + [0, 0, 50, 50]]).astype(
            np.float32
        )
        labels = np.concatenate([np.repeat(classes, 2), generator.integers(0, len(NAMES), 3)])
        scores = generator.integers(0, 8, len(guesses)) / 10 + generator.normal(
            0, 1e-4, len(guesses)
        )
        detections.append((f"{k:06d}", guesses, scores.astype(np.float32), labels))
    return truth, detections


def write_voc(root: Path, truth) -> None:
    """The ground truth as VOC2007 test (no images)."""
    folder = root / "VOC2007"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets/Main/test.txt").write_text(
        "".join(f"{image_id}\n" for image_id, *_ in truth)
    )
    for image_id, boxes, classes, difficult in truth:
        objects = [
            (NAMES[c], [int(v) for v in box], int(d))
            for box, c, d in zip(boxes, classes, difficult, strict=True)
        ]
        (folder / "Annotations" / f"{image_id}.xml").write_text(tiny.xml((100, 100), objects))


def coco(seed: int, content: dict):
    """Return detections (id, size, boxes, scores, classes, masks) around a JSON's ground truth."""
    generator = np.random.default_rng(100 + seed)
    labels = {
        category: k for k, category in enumerate(sorted(c["id"] for c in content["categories"]))
    }
    for image in sorted(content["images"], key=lambda i: i["id"]):
        height, width = image["height"], image["width"]
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in mine for _ in range(3)], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = (
            (boxes + generator.normal(0, 2.0, boxes.shape))
            .clip(0, [width, height] * 2)
            .astype(np.float32)
        )
        classes = np.array(
            [labels[a["category_id"]] for a in mine for _ in range(3)], dtype=np.int64
        )
        scores = (generator.integers(1, 6, len(boxes)) / 6).astype(np.float32)
        masks = np.zeros((len(boxes), height, width), dtype=bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        yield image["id"], (height, width), boxes, scores, classes, masks


def only(kind: str, content: dict) -> dict:
    """Return a COCO JSON with polygons or run-length codes only, besides crowds ("mixed": all)."""
    wants = {"codes": dict, "polygons": list, "mixed": (dict, list)}[kind]
    selected = [
        a for a in content["annotations"] if a["iscrowd"] or isinstance(a["segmentation"], wants)
    ]
    return content | {"annotations": selected}


def size_cases() -> list[tuple[int, int, int, int]]:
    """(height, width, short side, longest) over a wide range."""
    generator = np.random.default_rng(7)
    spans = ((30, 1200), (30, 1200), (40, 900), (900, 1400))
    columns = [generator.integers(*span, 300).tolist() for span in spans]
    return list(zip(*columns, strict=True))


def cityscapes(seed: int, ids):
    """Return detections (label ids, scores, masks) around the objects of instanceIds [H, W]."""
    generator = np.random.default_rng(200 + seed)
    labels, scores, masks = [], [], []
    for value in [v for v in np.unique(ids).tolist() if v >= 24]:
        for _ in range(2):  # one near the object, one farther away, some of another class
            dy, dx = generator.integers(-2, 3, 2)
            mask = np.roll(ids == value, (dy, dx), (0, 1)) | (generator.random(ids.shape) < 0.01)
            label = value // 1000 if value >= 1000 else value
            other = [24, 25, 26, 27, 33][generator.integers(5)]
            keep = generator.random() < 0.8 and label not in (29, 30)
            labels.append(label if keep else other)
            scores.append(round(float(generator.random()), 1))
            masks.append(mask)
    return [*labels, 28], [*scores, 0.5], [*masks, np.zeros(ids.shape, dtype=bool)]


def outlines() -> list[list[list[int]]]:
    """Return outlines of twelve cars that do not touch, as *_gtFine_polygons.json has them."""
    generator = np.random.default_rng(0)
    polygons = []
    for k in range(12):
        corners = int(generator.integers(3, 9))
        angles = 2 * np.pi * (np.arange(corners) + generator.random(corners) / 2) / corners
        radii = generator.uniform(6, 17, corners)
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        middle = [20 + 40 * (k % 4), 20 + 40 * (k // 4)]
        polygons.append((points + middle).round().astype(int).tolist())
    return polygons


def drawn(polygons):
    """Return instanceIds as cityscapesscripts' json2instanceImg draws them."""
    image = Image.new("I", CITY_PX, 7)
    for number, points in enumerate(polygons):
        ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=26000 + number)
    return np.array(image).astype(np.uint16)
