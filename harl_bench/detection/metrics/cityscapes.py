"""AP of Cityscapes instance segmentation by the benchmark's own package, cityscapesscripts.

Its functions from the matches on compute the score. The matches, which pixels of a detection lie in
which object, are counted here: the package reads each mask from a PNG of its own (50,000 for val),
by a function that NumPy 2.4 no longer has.
"""

import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from harl_bench.core.cityscapes import LABELS, LARGEST, THINGS
from harl_bench.core.errors import MachineError

Ids = NDArray[np.integer[Any]]
# ids that are not evaluated (ignoreInEval of helpers/labels.py)
VOID = sorted({*range(LARGEST + 1)} - {id_ for id_, _, _ in LABELS})
INSTALL = "pip install 'harl-bench[cityscapes]'"
Scored = dict[str, float | None]


class Image(NamedTuple):
    """The instanceIds of an image, and its detections: label ids, scores 0..1, run-length codes."""

    ids: Ids
    labels: Sequence[int]
    scores: Sequence[float]
    masks: Sequence[dict[str, Any]]


def library() -> Any:
    """Return cityscapesscripts' module of the metric.

    Raises:
        MachineError: it is not installed.
    """
    try:
        return import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    except ImportError as error:
        raise MachineError(
            "cityscapesscripts, which scores Cityscapes, cannot be imported",
            seen=error,
            next=INSTALL,
        ) from None


def evaluate(images: Iterable[Image]) -> tuple[Scored, dict[str, Scored]]:
    """Return AP (IoU .50 to .95) and AP50 in percent, over all classes and by class.

    None where the truth has no object of at least 100 pixels.

    Raises:
        MachineError: cityscapesscripts is not installed.
    """
    module = library()
    module.setInstanceLabels(module.args)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        pairs = {str(k): matches(image) for k, image in enumerate(images)}
        averages = module.computeAverages(module.evaluateMatches(pairs, module.args), module.args)
    per_class = {
        name: _scores(values["ap"], values["ap50%"]) for name, values in averages["classes"].items()
    }
    return _scores(averages["allAp"], averages["allAp50%"]), per_class


def matches(image: Image) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return objects and detections of one image by class, as the package's assignGt2Preds does.

    Each has its size in pixels and what it overlaps of its own class; a detection also has the
    number of its pixels without a class. Empty masks are left out.
    """
    sizes = np.bincount(image.ids.ravel())
    truth: dict[str, list[dict[str, Any]]] = {name: [] for name in THINGS.values()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in THINGS.values()}
    for value in np.flatnonzero(sizes).tolist():
        label = value // 1000 if value >= 1000 else value
        if label in THINGS:
            about = {"instID": value, "labelID": label, "pixelCount": int(sizes[value])}
            # distances are those of the benchmark's videos alone
            truth[THINGS[label]].append(about | {"medDist": -1, "distConf": 0.0, "matchedPred": []})
    number = 0
    for label, score, mask in zip(image.labels, image.scores, image.masks, strict=True):
        x, y, width, height = coco_mask.toBbox(mask).astype(int)
        window = np.s_[y : y + height, x : x + width]
        pixels = image.ids[window][coco_mask.decode(mask)[window] != 0]
        inside = np.bincount(pixels, minlength=LARGEST + 1)
        if not inside.any():
            continue
        detection = {
            "predID": number,
            "labelID": label,
            "pixelCount": int(inside.sum()),
            "confidence": score,
            "voidIntersection": int(inside[VOID].sum()),
        }
        overlaps = []
        for thing in truth[THINGS[label]]:
            shared = int(inside[thing["instID"]]) if thing["instID"] < len(inside) else 0
            if shared:
                plain = {key: value for key, value in thing.items() if key != "matchedPred"}
                overlaps.append(plain | {"intersection": shared})
                thing["matchedPred"].append(detection | {"intersection": shared})
        found[THINGS[label]].append(detection | {"matchedGt": overlaps})
        number += 1
    return {"groundTruth": truth, "prediction": found}


def _scores(ap: Any, ap50: Any) -> Scored:
    values = {"segm/AP": float(ap), "segm/AP50": float(ap50)}
    return {name: None if np.isnan(value) else 100 * value for name, value in values.items()}
