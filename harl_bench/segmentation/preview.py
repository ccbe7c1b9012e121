"""Images of the run: the image, its labels, the prediction, and where the two differ."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harl_bench.core.files import replacing
from harl_bench.core.images import read_rgb
from harl_bench.segmentation.confusion import IGNORED, Labels
from harl_bench.segmentation.datasets import Split

RIGHT, WRONG, OUT = (0, 200, 80), (235, 40, 60), (150, 150, 150)  # green, red, gray
LONG_SIDE_PX = 320  # of each of the four panels
GAP_PX = 6


def rows(split: Split, n: int) -> list[int]:
    """Return `n` rows spread over a split."""
    total = len(split.items)
    spread = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(int))
    return [int(row) for row in spread]


def write(folder: Path, split: Split, predictions: Mapping[int, Labels]) -> list[Path]:
    """Write `segmentation-<image>.png` for each prediction, by row; return the paths."""
    paths = []
    for row, predicted in sorted(predictions.items()):
        path = folder / f"segmentation-{Path(split.items[row].image).stem}.png"
        with replacing(path) as temporary:
            panels(split, row, predicted).save(temporary)
        paths.append(path)
    return paths


def panels(split: Split, row: int, predicted: Labels) -> Image.Image:
    """Return the image, truth, prediction and errors of a row side by side.

    Errors are red, right pixels green, both on the image; what is not scored is gray.
    """
    image, truth = read_rgb(split.items[row].image), split.label(row)
    verdict = np.full((*truth.shape, 3), OUT, np.uint8)
    scored = (truth != IGNORED) & (predicted != IGNORED)
    verdict[scored & (truth == predicted)] = RIGHT
    verdict[scored & (truth != predicted)] = WRONG
    errors = Image.blend(image, Image.fromarray(verdict), 0.6)
    four = [image, _colored(truth, split), _colored(predicted, split), errors]
    scale = LONG_SIDE_PX / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    sheet = Image.new("RGB", (4 * width + 3 * GAP_PX, height), "white")
    for k, panel in enumerate(four):
        flag = Image.Resampling.BILINEAR if k in (0, 3) else Image.Resampling.NEAREST
        sheet.paste(panel.resize((width, height), flag), (k * (width + GAP_PX), 0))
    return sheet


def _colored(labels: Labels, split: Split) -> Image.Image:
    table: NDArray[np.uint8] = np.full((256, 3), OUT, np.uint8)
    table[: len(split.colors)] = split.colors
    return Image.fromarray(table[labels])
