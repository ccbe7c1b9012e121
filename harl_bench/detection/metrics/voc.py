"""The VOC metric as Detectron2 computes it (D2:evaluation/pascal_voc_evaluation.py), one class at a
time.

It differs from COCO's in every part: 11-point interpolation (VOC2007) or the area under the curve
(other years) at each of the ten IoU thresholds .50 ... .95, areas with one more pixel, a match
needs IoU strictly above the threshold, a detection looks only at its best ground truth, and
difficult objects neither count nor penalise. Detections pass through
text, scores with 3 decimals and boxes with 1: the rounding makes ties, whose order numpy's default
    (unstable) sort
decides, and both are part of the number.

N detections and M objects of one class. Boxes here are VOC's own: xyxy, 1-based, inclusive.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets.sample import Sample

Floats = NDArray[np.float64]
NAMES = ("AP", "AP50", "AP75")
THRESHOLDS = tuple(threshold / 100 for threshold in range(50, 100, 5))


class Truth(NamedTuple):
    """The objects of one class in one image: `boxes [M, 4]` float64, `difficult [M]` bool."""

    boxes: Floats
    difficult: NDArray[np.bool_]


class ClassScore(NamedTuple):
    """AP (percent) at each threshold, and the curve at IoU .50: recall and precision after each
    detection [N].
    """

    ap: Floats
    recall: Floats
    precision: Floats


def lines(
    image_id: str | int, boxes: NDArray[np.float32], scores: Iterable[float], classes: Iterable[int]
) -> list[tuple[int, str]]:
    """Detections of one image as (class, line of VOC's result files "id score xmin ymin xmax
    ymax").

    Args:
        boxes: [N, 4] 0-based pixels; 1 is added to xmin and ymin in float32, as Detectron2 does.
    """
    shifted = boxes + np.array([1, 1, 0, 0], dtype=np.float32)
    return [
        (int(label), f"{image_id} {score:.3f} {box[0]:.1f} {box[1]:.1f} {box[2]:.1f} {box[3]:.1f}")
        for box, score, label in zip(shifted, scores, classes, strict=True)
    ]


def truths(samples: Iterable[Sample], n_classes: int) -> list[dict[str, Truth]]:
    """For each class, the objects of every image that has one."""
    found: list[dict[str, Truth]] = [{} for _ in range(n_classes)]
    for sample in samples:
        boxes = sample.boxes + np.array([1, 1, 0, 0])  # back to the file's own whole numbers
        for label in np.unique(sample.classes):
            mine = sample.classes == label
            found[label][str(sample.image_id)] = Truth(boxes[mine], sample.difficult[mine])
    return found


def interpolation(name: str) -> str:
    """Return how AP is computed on the data set `voc_<year>_<split>`: "11-point" for VOC2007, else
    "area".

    As D2:evaluation/pascal_voc_evaluation.py:47. The challenge itself changed the metric in 2010.
    """
    return "11-point" if name.split("_")[1] == "2007" else "area"


def evaluate(
    detections: Mapping[int, Sequence[str]],
    samples: Iterable[Sample],
    class_names: Sequence[str],
    interpolated: str = "11-point",
) -> tuple[dict[str, float], dict[str, dict[str, float | None]], dict[str, ClassScore]]:
    """Scores of a test set, in percent.

    Args:
        detections: lines per class index, in the order of the test images (ties depend on it).
        interpolated: "11-point" or "area"; see `interpolation`.

    Returns:
        {"AP", "AP50", "AP75"}: means over classes, a class without ground truth counting as 0, as
        in Detectron2; the same per class, None for a class without ground truth; and the curves.

    Raises:
        DataError: a line that is not a detection.
    """
    samples = list(samples)
    known = {str(sample.image_id) for sample in samples}
    per_class: dict[str, ClassScore] = {}
    table: dict[str, dict[str, float | None]] = {}
    for label, truth in enumerate(truths(samples, len(class_names))):
        score = per_class[class_names[label]] = score_class(
            detections.get(label, ()), truth, known, AVERAGES[interpolated]
        )
        counts = any((~objects.difficult).any() for objects in truth.values())
        values = (score.ap.mean(), score.ap[0], score.ap[5])
        table[class_names[label]] = {
            k: float(v) if counts else None for k, v in zip(NAMES, values, strict=True)
        }
    by_threshold = np.mean([score.ap for score in per_class.values()], axis=0)
    means = (by_threshold.mean(), by_threshold[0], by_threshold[5])
    metrics = {k: float(v) for k, v in zip(NAMES, means, strict=True)}
    return metrics, table, per_class


def score_class(
    detections: Sequence[str],
    truth: Mapping[str, Truth],
    known: set[str] | None,
    average: Callable[[Floats, Floats], float],
) -> ClassScore:
    """AP of one class at the ten thresholds."""
    ids, scores, boxes = _parsed(detections, known)
    order = np.argsort(-scores)  # unstable on purpose, see above
    best_iou, best = _best_overlaps([ids[i] for i in order], boxes[order], truth)
    first = dict(
        zip(truth, np.cumsum([0, *(len(t.boxes) for t in truth.values())])[:-1], strict=True)
    )
    objects = best + np.array([first.get(ids[i], 0) for i in order], dtype=np.int64)
    difficult = (
        np.concatenate([t.difficult for t in truth.values()]) if truth else np.zeros(0, dtype=bool)
    )
    n_objects = int((~difficult).sum())
    ap, curve = [], None
    for threshold in THRESHOLDS:
        hit = best_iou > threshold
        counted = np.zeros(len(hit), dtype=bool)
        counted[hit] = ~difficult[objects[hit]]
        true = np.zeros(len(hit), dtype=bool)
        candidates = np.flatnonzero(counted)
        true[candidates[np.unique(objects[candidates], return_index=True)[1]]] = (
            True  # the first to claim an object
        )
        false = ~hit | (counted & ~true)
        recall, precision = _curve(true, false, n_objects)
        curve = curve or (recall, precision)
        ap.append(average(recall, precision))
    assert curve is not None, "there is a first threshold"
    return ClassScore(np.array(ap) * 100, *curve)


def eleven_points(recall: Floats, precision: Floats) -> float:
    """VOC 2007's AP: the mean over recalls 0, .1, ... 1 of the best precision at that recall or
    above.
    """
    ap = 0.0
    for t in np.arange(0.0, 1.1, 0.1):
        reached = recall >= t
        ap += (precision[reached].max() if reached.any() else 0.0) / 11.0
    return float(ap)


def area(recall: Floats, precision: Floats) -> float:
    """Return the area under the curve after each precision has become the best at that recall or
    above.

    D2: NaN for a class without ground truth, and so in the mean; here: 0, as with eleven points;
        because the mean over
    the other classes would be lost, and a departure counts these classes.
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
    rows = [line.strip().split(" ") for line in detections]
    try:
        ids = [row[0] for row in rows]
        values = np.array(
            [[float(text) for text in row[1:]] for row in rows], dtype=np.float64
        ).reshape(-1, 5)
    except (ValueError, IndexError) as error:
        raise DataError(
            "not a line of a VOC result file", seen=error, next="id score xmin ymin xmax ymax"
        ) from None
    if (
        known is not None
        and (strange := next((i for i in ids if i not in known), None)) is not None
    ):
        raise DataError("detection in an image that is not in the test split", seen=strange)
    return ids, values[:, 0], values[:, 1:]


def _best_overlaps(
    ids: list[str], boxes: Floats, truth: Mapping[str, Truth]
) -> tuple[Floats, NDArray[np.int64]]:
    """For each detection the highest IoU with an object of its image (-inf without one), and that
    object's index.
    """
    best_iou, best = np.full(len(ids), -np.inf), np.zeros(len(ids), dtype=np.int64)
    rows: dict[str, list[int]] = {}
    for row, image_id in enumerate(ids):
        rows.setdefault(image_id, []).append(row)
    for image_id, mine in rows.items():
        if image_id in truth:
            overlaps = iou(boxes[mine], truth[image_id].boxes)
            best[mine] = overlaps.argmax(1)
            best_iou[mine] = overlaps.max(1)
    return best_iou, best


def iou(a: Floats, b: Floats) -> Floats:
    """IoU of boxes [N, 4] and [M, 4] with VOC's inclusive pixels: a side is max - min + 1."""
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    sides = np.maximum(high - low + 1.0, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    area_a, area_b = _areas(a)[:, None], _areas(b)[None]
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # NaN for boxes without area: above no threshold, as there
        result: Floats = shared / (area_a + area_b - shared)
    return result


def _areas(boxes: Floats) -> Any:
    return (boxes[:, 2] - boxes[:, 0] + 1.0) * (boxes[:, 3] - boxes[:, 1] + 1.0)
