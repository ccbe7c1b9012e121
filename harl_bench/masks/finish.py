"""From a saliency map to a mask: threshold, clean-up, rejection.

Source: spec 4.1, 4.2; Van Gansbeke et al. 2021.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import UsageError

Map = NDArray[np.float32]
Mask = NDArray[np.uint8]

MIN_FRACTION = 0.01  # contours below 1 % of the image are dropped; a mask below 1 % is rejected ...
MAX_FRACTION = 0.99  # ... and so is one that leaves no background to compare with
Rule = Literal["otsu", "2xmean"]


def parse_threshold(text: str) -> float | Rule:
    """Return the threshold written as `0.5`, `otsu` or `2xmean`.

    Raises:
        UsageError: anything else, or a number outside 0..1.
    """
    if text == "otsu":
        return "otsu"
    if text == "2xmean":
        return "2xmean"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(
            "a threshold is a number between 0 and 1, otsu or 2xmean",
            where="--threshold",
            seen=text,
        )
    return value


def binarise(saliency: Map, threshold: float | Rule) -> NDArray[np.bool_]:
    """Return the foreground [h, w] above the threshold; none of a constant map under `otsu`."""
    if threshold == "otsu":
        low, high = float(saliency.min()), float(saliency.max())
        if high <= low:
            return np.zeros(saliency.shape, bool)
        from skimage.filters import threshold_otsu

        # Otsu's threshold is the centre of one of 256 bins; the bin's upper edge never separates
        # pixels of one bin, or of one region.
        return np.asarray(saliency > threshold_otsu(saliency) + (high - low) / 512)
    if threshold == "2xmean":
        # Achanta et al. 2009; the cap keeps some foreground of a map that is high everywhere
        return np.asarray(saliency > min(2 * float(saliency.mean()), 0.9))
    return np.asarray(saliency > threshold)


def clean(foreground: NDArray[np.bool_], min_fraction: float = MIN_FRACTION) -> NDArray[np.bool_]:
    """Remove connected parts and fill holes smaller than `min_fraction` of the image."""
    return ~_large(~_large(foreground, min_fraction), min_fraction)


def finish(saliency: Map, size: tuple[int, int], threshold: float | Rule) -> tuple[Mask, bool]:
    """Return the mask [H, W] of 0 and 255 at `size` (height, width), and whether it is valid.

    The map is enlarged before the threshold, so that outlines are smooth. A rejected mask is all
    zero.
    """
    import cv2

    height, width = size
    if saliency.shape != size:
        saliency = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    foreground = clean(binarise(saliency, threshold))
    fraction = float(foreground.mean())
    if not MIN_FRACTION <= fraction <= MAX_FRACTION:
        return np.zeros(size, np.uint8), False
    return foreground.astype(np.uint8) * np.uint8(255), True


def _large(parts: NDArray[np.bool_], min_fraction: float) -> NDArray[np.bool_]:
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(parts.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_fraction * parts.size
    keep[0] = False  # label 0 is what was not part of it
    return np.asarray(keep[labels])
