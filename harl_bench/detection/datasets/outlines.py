"""COCO's outlines: polygons and run-length codes, validated before a library in C reads them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets.sample import Segment

FARTHEST = 1e6  # px; pycocotools walks along edges pixel by pixel and would run out of memory


def read_outline(
    segmentation: Any, size: tuple[int, int], refuse: Callable[[str], DataError]
) -> Segment:
    """Return polygons of at least three points as arrays, or a compressed run-length code.

    Args:
        segmentation: as in the file.
        size: height and width of its image.
        refuse: returns the error of a sentence about the outline.

    Raises:
        DataError: it is neither, or does not belong to an image of this size.
    """
    if isinstance(segmentation, dict):
        return _run_length(segmentation, size, refuse)
    if not isinstance(segmentation, list) or not all(
        isinstance(part, list) for part in segmentation
    ):
        raise refuse("is neither a list of polygons nor a run-length code")
    try:
        parts = [
            np.array(part, dtype=np.float64)
            for part in segmentation
            if len(part) % 2 == 0 and len(part) >= 6
        ]
    except (TypeError, ValueError, OverflowError):
        raise refuse("has a coordinate that is not a number") from None
    if not all(part.ndim == 1 and np.isfinite(part).all() for part in parts):
        raise refuse("has a coordinate that is not a finite number")
    if any(np.abs(part).max() > FARTHEST for part in parts):
        raise refuse(f"has a coordinate beyond {FARTHEST:,.0f} pixels")
    return parts


def _run_length(
    code: dict[str, Any], shape: tuple[int, int], refuse: Callable[[str], DataError]
) -> dict[str, Any]:
    """Return COCO's compressed run-length code.

    Its runs are summed here, because pycocotools would read beyond its memory otherwise.
    """
    from pycocotools import mask as coco_mask

    size, counts = code.get("size"), code.get("counts")
    if size != [*shape]:
        raise refuse(f"has size {size}, its image {[*shape]}")
    if isinstance(counts, str):
        counts = runs(counts)
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise refuse("has broken run-length counts")
    if sum(counts) != shape[0] * shape[1]:
        raise refuse(f"has runs over {sum(counts):,} pixels, its image has {shape[0] * shape[1]:,}")
    packed: dict[str, Any] = coco_mask.frPyObjects({"size": [*shape], "counts": counts}, *shape)
    return packed


def runs(text: str) -> list[int] | None:
    """Decode COCO's compressed counts (pycocotools maskApi.c, rleFrString).

    They have 5 bits a character and, after the third run, differences from the run before last.
    None if the text is cut short or holds other characters.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text.encode("ascii", "replace"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths if shift == 0 else None
