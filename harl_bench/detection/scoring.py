"""Scores of detections, and the result files that other evaluators read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.core.files import write_bytes
from harl_bench.detection.datasets.cityscapes import SPLITS, instance_ids
from harl_bench.detection.datasets.sample import Dataset
from harl_bench.detection.metrics import cityscapes, coco, voc

INFERENCE = "inference"  # folder of result files in a run


class Prediction(NamedTuple):
    """Detections in one test image.

    Attributes:
        boxes: [N, 4] float32 xyxy pixels of the original image.
        scores: 0..1, descending.
        classes: indices.
        masks: compressed run-length codes, or None.
    """

    image_id: str | int
    boxes: NDArray[np.float32]
    scores: list[float]
    classes: list[int]
    masks: list[dict[str, Any]] | None = None


class Scores(NamedTuple):
    """Scores in percent.

    Attributes:
        curves: {class: (recall [R], precision [R])} at IoU .50, NaN without ground truth; empty
            for Cityscapes.
        metric: computation of VOC's AP, "11-point" or "area".
    """

    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]]
    curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    metric: str = ""


def score(
    test: Dataset,
    predictions: Sequence[Prediction],
    *,
    masks: bool,
    folder: Path | None = None,
    library: str = "auto",
) -> Scores:
    """Return the scores by the data set's own metric: Cityscapes', COCO's or VOC's.

    Args:
        predictions: one per test image, in the order of the test set (VOC's ties depend on it).
        folder: for result files: one <class>.txt per class (VOC), coco_instances_results.json, or
            cityscapes_instances_results.json, which is in COCO's format, too.
        library: COCO's evaluator: "auto", "hotcoco" or "pycocotools".

    Raises:
        DataError: predictions and test images do not correspond.
    """
    if [sample.image_id for sample in test.samples] != [p.image_id for p in predictions]:
        seen = f"{len(predictions)} for {len(test.samples)}"
        raise DataError("not one prediction per test image", seen=seen)
    if test.name in SPLITS:
        return _cityscapes(test, predictions, folder)
    if test.truth:
        return _coco(test, predictions, masks, folder, library)
    return _voc(test, predictions, folder)


def _voc(test: Dataset, predictions: Sequence[Prediction], folder: Path | None) -> Scores:
    lines: dict[int, list[str]] = {label: [] for label in range(len(test.class_names))}
    for p in predictions:
        for label, line in voc.lines(p.image_id, p.boxes, p.scores, p.classes):
            lines[label].append(line)
    if folder:
        for label, name in enumerate(test.class_names):
            text = "".join(f"{line}\n" for line in lines[label])
            write_bytes(folder / f"{name}.txt", text.encode())
    metric = voc.interpolation(test.name)
    metrics, per_class, classes = voc.evaluate(lines, test.samples, test.class_names, metric)
    curves = {name: (c.recall, c.precision) for name, c in classes.items()}
    return Scores(dict(metrics), per_class, curves, metric)


def _coco(
    test: Dataset, predictions: Sequence[Prediction], masks: bool, folder: Path | None, library: str
) -> Scores:
    assert test.truth is not None, "a COCO test split knows its ground truth"
    records = _records(test, predictions, masks=masks)
    if folder:
        write_bytes(folder / "coco_instances_results.json", json.dumps(records).encode())
    metrics, per_class, precision = coco.evaluate(test.truth, records, masks=masks, library=library)
    recall = np.linspace(0, 1, 101)
    curves = {
        f"{name} ({kind})" if masks else name: (recall, precision[kind][:, k])
        for kind in precision
        for k, name in enumerate(test.class_names)
    }
    return Scores(metrics, per_class, curves)


def _cityscapes(test: Dataset, predictions: Sequence[Prediction], folder: Path | None) -> Scores:
    if folder:
        content = json.dumps(_records(test, predictions, masks=True)).encode()
        write_bytes(folder / "cityscapes_instances_results.json", content)
    images = (
        cityscapes.Image(
            instance_ids(sample.path),
            [test.category_ids[label] for label in p.classes],
            p.scores,
            p.masks or [],
        )
        for sample, p in zip(test.samples, predictions, strict=True)
    )
    metrics, per_class = cityscapes.evaluate(images)
    return Scores(metrics, per_class, curves={})


def _records(
    test: Dataset, predictions: Sequence[Prediction], *, masks: bool
) -> list[dict[str, Any]]:
    """Return all detections in COCO's result format."""
    records = []
    for p in predictions:
        ids = [test.category_ids[label] for label in p.classes]
        records += coco.records(p.image_id, p.boxes, p.scores, ids, p.masks if masks else None)
    return records


def shown(scores: dict[str, float | None], metric: str = "") -> str:
    """Return the scores in one line, with the name of the metric if there are several."""
    values = {name: "-" if value is None else f"{value:.2f}" for name, value in scores.items()}
    text = "  ".join(f"{name} {value}" for name, value in values.items())
    return f"{text}  ({metric})" if metric else text
