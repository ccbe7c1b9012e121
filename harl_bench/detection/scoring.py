"""Detections of a test set into scores, and into the result files that other evaluators read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.core.results import write_bytes
from harl_bench.detection.datasets.sample import Dataset
from harl_bench.detection.metrics import coco, voc

INFERENCE = "inference"  # folder of result files in a run


class Prediction(NamedTuple):
    """Detections in one test image: `boxes [N, 4]` float32 xyxy pixels of the original image,
    scores 0..1 descending, class indices, and compressed run-length codes of the masks.
    """

    image_id: str | int
    boxes: NDArray[np.float32]
    scores: list[float]
    classes: list[int]
    masks: list[dict[str, Any]] | None = None


class Scores(NamedTuple):
    """Percent.

    `curves`: {class: (recall [R], precision [R])} at IoU .50; NaN where there is no ground truth.

    `metric` is how VOC's AP was computed, "11-point" or "area".
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
    """Score with the metric of the data set: COCO's if it came from a COCO JSON, else VOC's.

    Args:
        predictions: one per test image, in the order of the test set (VOC's ties depend on it).
        folder: where result files go: one <class>.txt per class (VOC) or
            coco_instances_results.json.
        library: COCO's evaluator: "auto", "hotcoco" or "pycocotools".

    Raises:
        DataError: predictions and test images do not correspond.
    """
    expected, given = (
        [sample.image_id for sample in test.samples],
        [p.image_id for p in predictions],
    )
    if expected != given:
        raise DataError(
            "not one prediction per test image", seen=f"{len(given)} for {len(expected)}"
        )
    return (
        _coco(test, predictions, masks, folder, library)
        if test.truth
        else _voc(test, predictions, folder)
    )


def _voc(test: Dataset, predictions: Sequence[Prediction], folder: Path | None) -> Scores:
    lines: dict[int, list[str]] = {label: [] for label in range(len(test.class_names))}
    for p in predictions:
        for label, line in voc.lines(p.image_id, p.boxes, p.scores, p.classes):
            lines[label].append(line)
    if folder:
        for label, name in enumerate(test.class_names):
            write_bytes(
                folder / f"{name}.txt", "".join(f"{line}\n" for line in lines[label]).encode()
            )
    metric = voc.interpolation(test.name)
    metrics, per_class, curves = voc.evaluate(lines, test.samples, test.class_names, metric)
    return Scores(
        dict(metrics),
        per_class,
        {name: (c.recall, c.precision) for name, c in curves.items()},
        metric,
    )


def _coco(
    test: Dataset, predictions: Sequence[Prediction], masks: bool, folder: Path | None, library: str
) -> Scores:
    assert test.truth is not None, "a COCO test split knows its ground truth"
    found = []
    for p in predictions:
        ids = [test.category_ids[label] for label in p.classes]
        found += coco.records(int(p.image_id), p.boxes, p.scores, ids, p.masks if masks else None)
    if folder:
        write_bytes(folder / "coco_instances_results.json", json.dumps(found).encode())
    metrics, per_class, precision = coco.evaluate(test.truth, found, masks=masks, library=library)
    recall = np.linspace(0, 1, 101)
    curves = {
        f"{name} ({kind})" if masks else name: (recall, precision[kind][:, k])
        for kind in precision
        for k, name in enumerate(test.class_names)
    }
    return Scores(metrics, per_class, curves)


def shown(scores: dict[str, float | None], metric: str = "") -> str:
    """Scores on one line, and how they were computed where that is not always the same."""
    text = "  ".join(
        f"{name} {value:.2f}" if value is not None else f"{name} -"
        for name, value in scores.items()
    )
    return f"{text}  ({metric})" if metric else text
