"""COCO's box and mask scores, with Detectron2's settings (D2:evaluation/coco_evaluation.py).

pycocotools is the reference. hotcoco, where installed, computes the same numbers to the last bit
(test_coco_metric.py) at least ten times faster, so it is the default. `--evaluator pycocotools`
uses the reference.

Two traps: mask scoring must not see the boxes, or the size buckets use the box's area (:581-588).
And with no detection at all Detectron2 reports NaN for boxes and nothing for masks (:209-215),
where the score is 0.
"""

import contextlib
import copy
import importlib.util
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import MachineError
from harl_bench.detection.datasets.sample import Truth

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def encoded(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return masks [N, H, W] as COCO's compressed run-length codes, ready for JSON."""
    from pycocotools import mask as coco_mask

    codes = (coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks)
    return [{"size": [*code["size"]], "counts": code["counts"].decode("ascii")} for code in codes]


def records(
    image_id: int | str,
    boxes: NDArray[np.float32],
    scores: Sequence[float],
    category_ids: Sequence[int],
    masks: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of one image in COCO's result format.

    Args:
        boxes: [N, 4] xyxy pixels.
        masks: run-length codes of the image's own size, or None.
    """
    corners = boxes.copy()
    corners[:, 2:] -= corners[:, :2]  # in float32, as Detectron2 does
    result: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": int(category), "bbox": box, "score": float(score)}
        for box, score, category in zip(corners.tolist(), scores, category_ids, strict=True)
    ]
    if masks is not None:
        for record, mask in zip(result, masks, strict=True):
            record["segmentation"] = mask
    return result


def evaluate(
    truth: Truth, detections: Sequence[dict[str, Any]], *, masks: bool, library: str = "auto"
) -> tuple[
    dict[str, float | None], dict[str, dict[str, float | None]], dict[str, NDArray[np.float64]]
]:
    """Return the scores in percent, None where there is nothing to measure (no small object, say).

    Args:
        truth: of the test split.
        detections: `records` of all test images, with the file's own ids.
        library: "hotcoco", "pycocotools", or "auto": hotcoco if it is installed.

    Returns:
        {"bbox/AP", ...} and, with masks, {"segm/AP", ...}; the same two APs per class; and for
        "bbox" and "segm" the precision at IoU .50, recall 0, .01 ... 1, for each class [101, K]
        (NaN without ground truth).
    """
    library = library if detections else "pycocotools"  # see _scores on empty lists
    loaded, evaluator = load(truth, library), libraries(library)[1]
    ids = {"image_id": truth.image_ids, "category_id": truth.category_ids}
    new_ids = {key: {old: k for k, old in enumerate(olds, 1)} for key, olds in ids.items()}
    numbered = [r | {key: new[r[key]] for key, new in new_ids.items()} for r in detections]
    metrics: dict[str, float | None] = {}
    per_class: dict[str, dict[str, float | None]] = {name: {} for name in truth.class_names}
    curves = {}
    for kind in ("bbox", "segm") if masks else ("bbox",):
        stats, precision = _scores(loaded, numbered, kind, evaluator)
        for name, value in zip(NAMES, stats, strict=False):
            metrics[f"{kind}/{name}"] = _percent(value)
        for k, name in enumerate(truth.class_names):
            values = precision[:, :, k, 0, -1]
            values = values[values > -1]
            per_class[name][f"{kind}/AP"] = _percent(values.mean() if len(values) else -1)
        at_50 = precision[0, :, :, 0, -1]
        curves[kind] = np.where(at_50 > -1, at_50, np.nan)
    return metrics, per_class, curves


def load(truth: Truth, library: str = "auto") -> Any:
    """Return the ground truth as the library's COCO object.

    Done once before training, it shows that the data can be scored.

    Raises:
        MachineError: "hotcoco" was asked for and is not installed.
    """
    reader, _ = libraries(library)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = reader()
        loaded.dataset = json.loads(truth.content)
        loaded.createIndex()
    return loaded


def libraries(name: str) -> tuple[Any, Any]:
    """Return the classes COCO and COCOeval of an evaluator; both libraries have the same interface.

    Raises:
        MachineError: "hotcoco" was asked for and is not installed.
    """
    fast = importlib.util.find_spec("hotcoco") is not None
    if name == "hotcoco" and not fast:
        raise MachineError(
            "hotcoco is not installed", next="pip install hotcoco, or --evaluator pycocotools"
        )
    if fast and name != "pycocotools":
        import hotcoco

        return hotcoco.COCO, hotcoco.COCOeval
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _scores(
    truth: Any, detections: Sequence[dict[str, Any]], kind: str, evaluator: Any
) -> tuple[Any, NDArray[np.float64]]:
    """Return the twelve numbers and the precision [thresholds, recalls, classes, areas, limits]."""
    with contextlib.redirect_stdout(io.StringIO()):
        if detections:
            records = copy.deepcopy(list(detections))  # loadRes writes into them
            for record in records:
                record.pop("bbox" if kind == "segm" else "segmentation", None)
            results = truth.loadRes(records)
        else:  # loadRes fails on an empty list
            results = copy.copy(truth)
            results.dataset, results.anns = {**truth.dataset, "annotations": []}, {}
            results.createIndex()
        evaluation = evaluator(truth, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, np.asarray(evaluation.eval["precision"])


def _percent(value: Any) -> float | None:
    return float(value) * 100 if value > -1 else None
