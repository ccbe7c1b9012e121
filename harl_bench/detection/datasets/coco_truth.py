"""The ground truth of a COCO test split, as the metric gets it."""

import json
from collections.abc import Mapping
from typing import Any

from harl_bench.detection.datasets.sample import BOX_AS_OUTLINE, Segment, Truth, count_fault


class GroundTruth:
    """Validated fields alone, collected image by image and numbered from 1.

    COCOeval writes the matched object's id where 0 means "no match", so an object with id 0 counts
    as missed (cocoapi #332, #507, #600). Readers in other languages refuse negative ids, a year in
    quotes, or a license of null.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self,
        image: dict[str, Any],
        rows: list[tuple[dict[str, Any], Segment | None]],
        indices: Mapping[int, int],
        masks: bool,
        faults: dict[str, int],
    ) -> None:
        """Add an image and its annotations, also those that training skips, as Detectron2 does.

        paper: pycocotools fails on outlines of no or one point and takes two points for a box;
        here: the object's box stands for its outline; because pycocotools does so for results
        without one (COCO.loadRes).
        """
        number = len(self.images) + 1
        size = {"width": image["width"], "height": image["height"]}
        self.images.append({"id": number, "file_name": f"{number}.jpg", **size})
        for annotation, outline in rows:
            x, y, width, height = box = [float(value) for value in annotation["bbox"]]
            truth: dict[str, Any] = {
                "id": len(self.annotations) + 1,
                "image_id": number,
                "bbox": box,
                "area": float(annotation["area"]),
                "category_id": indices[annotation["category_id"]] + 1,
                "iscrowd": annotation["iscrowd"],
            }
            if masks and isinstance(outline, dict):
                counts = outline["counts"].decode("ascii")
                truth["segmentation"] = {"size": [*outline["size"]], "counts": counts}
            elif masks and isinstance(outline, list) and outline:
                truth["segmentation"] = [part.tolist() for part in outline]
            elif masks:
                left, right = (min(max(at, 0.0), float(image["width"])) for at in (x, x + width))
                top, bottom = (min(max(at, 0.0), float(image["height"])) for at in (y, y + height))
                truth["segmentation"] = [[left, top, left, bottom, right, bottom, right, top]]
                count_fault(faults, BOX_AS_OUTLINE)
            self.annotations.append(truth)

    def to_json(
        self, image_ids: tuple[int, ...], category_ids: tuple[int, ...], names: tuple[str, ...]
    ) -> Truth:
        """Return the ground truth as JSON, with the ids and names behind its numbers."""
        categories = [{"id": k + 1, "name": str(k + 1)} for k in range(len(names))]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        return Truth(image_ids, category_ids, names, json.dumps(content).encode())
