"""COCO evaluation, hotcoco against pycocotools in one process, and VOC's metric.

    python -m benchmarks.coco_eval [--images 1000]

Random boxes: images x 100 detections x 80 classes, seven objects an image as in COCO.
"""

import argparse
import json
import time
from typing import Any

import numpy as np

from harl_bench.detection.datasets.sample import Sample, Truth
from harl_bench.detection.metrics import coco, voc

CLASSES, OBJECTS, DETECTIONS, SIDE = 80, 7, 100, 640


def boxes(generator: np.random.Generator, n: int) -> np.ndarray:
    """[n, 4] xyxy in a square image."""
    corners = generator.uniform(0, SIDE * 0.7, (n, 2))
    return np.concatenate([corners, corners + generator.uniform(8, SIDE * 0.3, (n, 2))], 1)


def scene(images: int) -> tuple[Any, Any, Any, Any]:
    """(COCO content, COCO detections, VOC samples, VOC lines by class)."""
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k + 1, "name": f"c{k}"} for k in range(CLASSES)],
    }
    found, samples = [], []
    lines: dict[int, list[str]] = {k: [] for k in range(CLASSES)}
    for number in range(images):
        truth, classes = boxes(generator, OBJECTS), generator.integers(0, CLASSES, OBJECTS)
        content["images"].append(
            {"id": number + 1, "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE}
        )
        for (x0, y0, x1, y1), label in zip(truth.tolist(), classes.tolist(), strict=True):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "segmentation": [],
                }
            )
        own = np.repeat(truth, 4, 0) + generator.normal(0, 8, (OBJECTS * 4, 4))
        detected = np.concatenate([own, boxes(generator, DETECTIONS - len(own))]).astype(np.float32)
        labels = np.concatenate(
            [np.repeat(classes, 4), generator.integers(0, CLASSES, DETECTIONS - len(own))]
        )
        scores = generator.random(DETECTIONS).astype(np.float32).tolist()
        found += coco.records(number, detected, scores, (labels + 1).tolist())
        none = np.zeros(OBJECTS, dtype=bool)
        samples.append(Sample("", str(number), SIDE, SIDE, truth.round(), classes, none, none))
        for label, line in voc.lines(number, detected, scores, labels):
            lines[label].append(line)
    return content, found, samples, lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    images = parser.parse_args().images
    content, found, samples, lines = scene(images)
    took, scores = {}, {}
    ids = tuple(range(1, CLASSES + 1))
    names = [f"c{k}" for k in range(CLASSES)]
    truth = Truth(tuple(range(images)), ids, tuple(names), json.dumps(content).encode())
    for library in ("pycocotools", "hotcoco"):
        began = time.perf_counter()
        scores[library] = coco.evaluate(truth, found, masks=False, library=library)[0]
        took[library] = time.perf_counter() - began
        print(f"{library:12} {took[library]:8.2f} s   bbox/AP {scores[library]['bbox/AP']:.4f}")
    assert scores["pycocotools"] == scores["hotcoco"], "both must give the same numbers"
    ratio = took["hotcoco"] / took["pycocotools"]
    print(f"ratio        {ratio:8.4f}     (below 1: hotcoco is faster)")
    began = time.perf_counter()
    ap = voc.evaluate(lines, samples, names)[0]["AP"]
    print(f"VOC metric   {time.perf_counter() - began:8.2f} s   AP {ap:.4f}")


if __name__ == "__main__":
    main()
