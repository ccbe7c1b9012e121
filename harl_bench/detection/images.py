"""Images of ground truth beside right and wrong detections, and a plot of precision over recall."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harl_bench.core.files import replacing
from harl_bench.core.images import read_rgb
from harl_bench.detection.datasets.sample import Dataset, Sample, Segment
from harl_bench.detection.scoring import Prediction, Scores

TRUTH, RIGHT = (255, 200, 0), (0, 200, 80)  # yellow, green
WRONG, IGNORED = (235, 40, 60), (150, 150, 150)  # red, gray
MIN_SCORE = 0.3  # of the detections drawn; if none has it, the best three are drawn
MATCH_IOU = 0.5
LONG_SIDE_PX = 480  # of each half of an image
NAME_PX = 18  # of a box: legible where two of these images stand side by side in a report
CURVES = 12  # classes drawn in one plot, those with the highest AP


def write(
    folder: Path, test: Dataset, predictions: Sequence[Prediction], scores: Scores, *, n: int
) -> list[Path]:
    """Write `n` test images spread over the set and the precision-recall plot; return the paths."""
    total = len(test.samples)
    indices = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(int))
    paths = []
    for index in indices.tolist():
        sample: Sample = test.samples[index]
        path = folder / f"detection-{Path(sample.path).stem}.png"
        with replacing(path) as temporary:
            side_by_side(sample, predictions[index], test.class_names).save(temporary)
        paths.append(path)
    if n and scores.curves:
        paths += plot(folder, scores)
    return paths


def side_by_side(sample: Sample, prediction: Prediction, class_names: Sequence[str]) -> Image.Image:
    """Return an image with the ground truth on the left and the detections on the right.

    Ground truth is yellow (crowd and difficult gray), detections are green (right) or red (wrong).
    """
    image = read_rgb(sample.path, exif=True)
    scale = LONG_SIDE_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    halves = [image.resize(size, Image.Resampling.BILINEAR) for _ in range(2)]
    ignored = sample.crowd | sample.difficult
    colors = [IGNORED if skip else TRUTH for skip in ignored]
    names = [class_names[label] for label in sample.classes]
    outlines: list[Segment | None] = [*sample.segments] if sample.segments else [None] * len(names)
    _draw(halves[0], sample, sample.boxes * scale, names, colors, outlines)
    verdicts, scores = match(sample, prediction), prediction.scores
    top = [k for k, score in enumerate(scores) if score >= MIN_SCORE] or [*range(len(scores))][:3]
    top.reverse()  # the best is drawn last, on top
    colors = [{1: RIGHT, 0: WRONG, -1: IGNORED}[verdicts[k]] for k in top]
    names = [f"{class_names[prediction.classes[k]]} {100 * scores[k]:.0f}" for k in top]
    outlines = [prediction.masks[k] if prediction.masks else None for k in top]
    _draw(halves[1], sample, prediction.boxes[top] * scale, names, colors, outlines)
    both = Image.new("RGB", (2 * size[0] + 6, size[1]), "white")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (size[0] + 6, 0))
    return both


def match(sample: Sample, prediction: Prediction) -> list[int]:
    """Return for each detection 1 (right), 0 (wrong) or -1 (a crowd or a difficult object).

    Best score first, each object matches one detection of its class with IoU of at least one half.
    """
    verdicts, matches = [0] * len(prediction.scores), set()
    overlaps = _iou(prediction.boxes.astype(np.float64), sample.boxes)
    overlaps[np.array(prediction.classes, dtype=int)[:, None] != sample.classes[None]] = 0
    for k in np.argsort(-np.array(prediction.scores), kind="stable").tolist():
        for j in np.argsort(-overlaps[k], kind="stable").tolist():
            if overlaps[k, j] < MATCH_IOU:
                break
            if sample.crowd[j] or sample.difficult[j]:
                verdicts[k] = -1
                break
            if j not in matches:
                matches.add(j)
                verdicts[k] = 1
                break
    return verdicts


def plot(folder: Path, scores: Scores) -> list[Path]:
    """Plot precision over recall at IoU .50, one line a class, and return the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = {
        name: (recall, precision)
        for name, (recall, precision) in scores.curves.items()
        if len(recall) and np.isfinite(recall).all() and np.isfinite(precision).all()
    }
    best = sorted(lines, key=lambda name: -float(np.mean(_envelope(*lines[name]))))[:CURVES]
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in best:
        recall, precision = lines[name]
        axes.plot(np.append(recall, recall[-1]), np.append(precision, 0), label=name, linewidth=1.2)
    more = f", the best {CURVES} of {len(lines)} classes" if len(lines) > CURVES else ""
    axes.set(xlabel="recall", ylabel=f"precision at IoU .50{more}", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if best:
        axes.legend(fontsize=7, ncols=2)
    paths = [folder / f"precision-recall.{kind}" for kind in ("png", "svg")]
    for path, metadata in zip(paths, (None, {"Date": None}), strict=True):
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=110, metadata=metadata)
    return paths


def _envelope(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> list[float]:
    return [float(precision[recall >= t].max(initial=0)) for t in np.linspace(0, 1, 11)]


def _draw(
    image: Image.Image,
    sample: Sample,
    boxes: NDArray[np.floating],
    names: list[str],
    colors: list[tuple[int, int, int]],
    outlines: Sequence[Segment | None],
) -> None:
    """Draw masks at 45 %, then boxes with names, into the image."""
    for outline, color in zip(outlines, colors, strict=True):
        if outline:
            mask = Image.fromarray((_mask(outline, sample) * 115).astype(np.uint8))
            image.paste(Image.new("RGB", image.size, color), (0, 0), mask.resize(image.size))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(NAME_PX)
    for (x0, y0, x1, y1), name, color in zip(boxes.tolist(), names, colors, strict=True):
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=color, width=2)
        corner = (x0 + 2, max(0, y0 - NAME_PX - 3))
        draw.rectangle(draw.textbbox(corner, name, font=font), fill=(0, 0, 0))
        draw.text(corner, name, fill=color, font=font)


def _mask(outline: Segment, sample: Sample) -> NDArray[np.uint8]:
    from pycocotools import mask as coco_mask

    if isinstance(outline, list):
        parts = [part.tolist() for part in outline]
        outline = coco_mask.merge(coco_mask.frPyObjects(parts, sample.height, sample.width))
    mask: NDArray[np.uint8] = coco_mask.decode(outline)
    return mask


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    overlap: NDArray[np.float64] = shared / np.maximum(union, 1e-9)
    return overlap
