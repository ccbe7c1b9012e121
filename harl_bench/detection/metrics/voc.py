"""The VOC metric as Detectron2 computes it (D2:evaluation/pascal_voc_evaluation.py), by class.

It differs from COCO's in every part: 11-point interpolation (VOC2007) or the area under the curve
(other years) at each of the ten IoU thresholds .50 ... .95, areas with one more pixel, a match
needs IoU strictly above the threshold, only the best ground truth of a detection is used, and
difficult objects neither count nor penalize. Detections pass through text, scores with 3 decimals
and boxes with 1: the rounding makes ties, whose order numpy's default (unstable) sort decides, and
both are part of the number.

N detections and M objects of one class. Boxes here are VOC's own: xyxy, 1-based, inclusive.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets.sample import Sample

Floats = NDArray[np.float64]
THRESHOLDS = tuple(threshold / 100 for threshold in range(50, 100, 5))


class Truth(NamedTuple):
    """Objects of one class in one image: `boxes [M, 4]` float64, `difficult [M]` bool."""

    boxes: Floats
    difficult: NDArray[np.bool_]


class ClassScore(NamedTuple):
    """AP (percent) at each threshold; recall and precision [N] at IoU .50 after each detection."""

    ap: Floats
    recall: Floats
    precision: Floats


def lines(
    image_id: str | int, boxes: NDArray[np.float32], scores: Iterable[float], classes: Iterable[int]
) -> list[tuple[int, str]]:
    """Return detections of one image as (class, line "id score xmin ymin xmax ymax").

    Args:
        boxes: [N, 4] 0-based pixels; 1 is added to xmin and ymin in float32, as Detectron2 does.
    """
    shifted = boxes + np.array([1, 1, 0, 0], dtype=np.float32)
    return [
        (int(label), f"{image_id} {score:.3f} {box[0]:.1f} {box[1]:.1f} {box[2]:.1f} {box[3]:.1f}")
        for box, score, label in zip(shifted, scores, classes, strict=True)
    ]


def truths(samples: Iterable[Sample], n_classes: int) -> list[dict[str, Truth]]:
    """Return for each class the objects of every image that has one."""
    objects: list[dict[str, Truth]] = [{} for _ in range(n_classes)]
    for sample in samples:
        boxes = sample.boxes + np.array([1, 1, 0, 0])  # back to the file's own whole numbers
        for label in np.unique(sample.classes):
            own = sample.classes == label
            objects[label][str(sample.image_id)] = Truth(boxes[own], sample.difficult[own])
    return objects


def interpolation(name: str) -> str:
    """Return how AP is computed on `voc_<year>_<split>`: "11-point" for VOC2007, else "area".

    As D2:evaluation/pascal_voc_evaluation.py:47. The challenge itself changed the metric in 2010.
    """
    return "11-point" if name.split("_")[1] == "2007" else "area"


def evaluate(
    detections: Mapping[int, Sequence[str]],
    samples: Iterable[Sample],
    class_names: Sequence[str],
    interpolated: str = "11-point",
) -> tuple[dict[str, float], dict[str, dict[str, float | None]], dict[str, ClassScore]]:
    """Return the scores of a test set in percent.

    Args:
        detections: lines per class index, in the order of the test images (ties depend on it).
        interpolated: "11-point" or "area"; see `interpolation`.

    Returns:
        {"AP", "AP50", "AP75"}, means over classes, in which a class without ground truth counts 0,
        as in Detectron2; the same per class, None for a class without ground truth; and the curves.

    Raises:
        DataError: a line that is not a detection.
    """
    samples = list(samples)
    known = {str(sample.image_id) for sample in samples}
    per_class: dict[str, ClassScore] = {}
    table: dict[str, dict[str, float | None]] = {}
    for label, truth in enumerate(truths(samples, len(class_names))):
        lines, name = detections.get(label, ()), class_names[label]
        score = per_class[name] = score_class(lines, truth, known, AVERAGES[interpolated])
        counts = any((~objects.difficult).any() for objects in truth.values())
        table[name] = {key: ap if counts else None for key, ap in _named(score.ap).items()}
    by_threshold = np.mean([score.ap for score in per_class.values()], axis=0)
    return _named(by_threshold), table, per_class


def _named(ap: Floats) -> dict[str, float]:
    return {"AP": float(ap.mean()), "AP50": float(ap[0]), "AP75": float(ap[5])}


def score_class(
    detections: Sequence[str],
    truth: Mapping[str, Truth],
    known: set[str] | None,
    average: Callable[[Floats, Floats], float],
) -> ClassScore:
    """Return the AP of one class at the ten thresholds."""
    ids, scores, boxes = _parsed(detections, known)
    order = np.argsort(-scores)  # unstable on purpose, see above
    best_iou, best = _best_overlaps([ids[i] for i in order], boxes[order], truth)
    starts = np.cumsum([0, *(len(t.boxes) for t in truth.values())])
    first = dict(zip(truth, starts[:-1], strict=True))
    objects = best + np.array([first.get(ids[i], 0) for i in order], dtype=np.int64)
    difficult = np.concatenate([np.zeros(0, dtype=bool), *(t.difficult for t in truth.values())])
    n_objects = int((~difficult).sum())
    curves = []
    for threshold in THRESHOLDS:
        hit = best_iou > threshold
        counted = np.zeros(len(hit), dtype=bool)
        counted[hit] = ~difficult[objects[hit]]
        true = np.zeros(len(hit), dtype=bool)
        candidates = np.flatnonzero(counted)
        # the first detection of an object
        true[candidates[np.unique(objects[candidates], return_index=True)[1]]] = True
        false = ~hit | (counted & ~true)
        curves.append(_curve(true, false, n_objects))
    ap = [average(recall, precision) for recall, precision in curves]
    return ClassScore(np.array(ap) * 100, *curves[0])


def eleven_points(recall: Floats, precision: Floats) -> float:
    """Return VOC 2007's AP: the best precision from recall 0, .1 ... 1 on, averaged."""
    ap = 0.0
    for t in np.arange(0.0, 1.1, 0.1):
        reached = recall >= t
        ap += (precision[reached].max() if reached.any() else 0.0) / 11.0
    return float(ap)


def area(recall: Floats, precision: Floats) -> float:
    """Return the area under the curve of the best precision at each recall or above.

    D2: NaN for a class without ground truth, and so in the mean; here: 0, as with eleven points;
    because the mean over the other classes would be lost, and a departure counts these classes.
    """
    if not np.isfinite(recall).all():
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


AVERAGES = {"11-point": eleven_points, "area": area}


def _curve(
    true: NDArray[np.bool_], false: NDArray[np.bool_], n_objects: int
) -> tuple[Floats, Floats]:
    trues, falses = np.cumsum(true, dtype=np.float64), np.cumsum(false, dtype=np.float64)
    if n_objects == 0:  # Detectron2 divides 0 by 0 here; NaN reaches no recall, so AP is 0
        return np.full(len(true), np.nan), np.zeros(len(true))
    return trues / n_objects, trues / np.maximum(trues + falses, np.finfo(np.float64).eps)


def _parsed(detections: Sequence[str], known: set[str] | None) -> tuple[list[str], Floats, Floats]:
    rows = [line.strip().rsplit(" ", 5) for line in detections]  # an id may have spaces
    try:
        ids = [row[0] for row in rows]
        numbers = [[float(text) for text in row[1:]] for row in rows]
        values = np.array(numbers, dtype=np.float64).reshape(-1, 5)
    except (ValueError, IndexError) as error:
        hint = "id score xmin ymin xmax ymax"
        raise DataError("not a line of a VOC result file", seen=error, next=hint) from None
    if known is not None and (unknown := [i for i in ids if i not in known]):
        raise DataError("detection in an image that is not in the test split", seen=unknown[0])
    return ids, values[:, 0], values[:, 1:]


def _best_overlaps(
    ids: list[str], boxes: Floats, truth: Mapping[str, Truth]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return each detection's highest IoU with an object of its image, or -inf, and its index."""
    best_iou, best = np.full(len(ids), -np.inf), np.zeros(len(ids), dtype=np.int64)
    rows: dict[str, list[int]] = {}
    for row, image_id in enumerate(ids):
        rows.setdefault(image_id, []).append(row)
    for image_id, own in rows.items():
        if image_id in truth:
            overlaps = iou(boxes[own], truth[image_id].boxes)
            best[own] = overlaps.argmax(1)
            best_iou[own] = overlaps.max(1)
    return best_iou, best


def iou(a: Floats, b: Floats) -> Floats:
    """Return the IoU of boxes [N, 4] and [M, 4] with inclusive pixels: a side is max - min + 1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(high - low + 1.0, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    area_a, area_b = _areas(a)[:, None], _areas(b)[None]
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN for boxes without area, as there
        result: Floats = shared / (area_a + area_b - shared)
    return result


def _areas(boxes: Floats) -> Any:
    return (boxes[:, 2] - boxes[:, 0] + 1.0) * (boxes[:, 3] - boxes[:, 1] + 1.0)
