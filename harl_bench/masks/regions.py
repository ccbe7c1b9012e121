"""Felzenszwalb-Huttenlocher regions and their statistics, without a loop over pixels.

Letters: H W image, h w working image, n regions, c channels. Labels are int32 [h, w], every value
0..n-1 used. Sizes given in pixels refer to an image of REFERENCE_PX and shrink or grow with the
image at hand, so that a toy image of 96 px is cut like a photograph. The merge scale k is
proportional to the side, as the official (H + W) / 8.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]
Image = NDArray[np.uint8]
# (sigma, k, min_size px) of one segmentation
Level = tuple[
    Annotated[float, Field(gt=0, le=10)],
    Annotated[float, Field(gt=0)],
    Annotated[float, Field(ge=1)],
]

# the images DRFI's parameter rows were selected on (its border strip: 15 px at side 400)
REFERENCE_PX = 400 * 300
# the usual ImageNet image, to which the HARL paper's minimum size of 1000 px refers
PAPER_PX = 500 * 375
# below this there is nothing to segment: makers return no foreground, and the mask is rejected
SMALLEST_SIDE_PX = 8


def working_size(height: int, width: int, work_px: int) -> tuple[int, int]:
    """Return (h, w) of about `work_px` pixels with the image's aspect, never enlarged."""
    scale = min(1.0, (work_px / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink(rgb: Image, work_px: int) -> Image:
    """Return the image [H, W, 3] at its working size, by area averaging (which does not alias)."""
    import cv2

    height, width = rgb.shape[:2]
    h, w = working_size(height, width, work_px)
    if (h, w) != (height, width):
        rgb = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(rgb)


def segment(rgb: Image, *, sigma: float, k: float, min_size: int, engine: str = "opencv") -> Labels:
    """Return the Felzenszwalb-Huttenlocher regions of [h, w, 3].

    `engine` is "opencv" (fast) or "skimage" (the official one). They weigh edges alike but smooth
    and break ties differently, so their regions differ slightly. The engine is part of a mask's
    provenance.
    """
    import cv2

    if engine == "skimage":
        from skimage.segmentation import felzenszwalb

        labels = felzenszwalb(rgb, scale=k, sigma=sigma, min_size=min_size)
    else:
        graph = cv2.ximgproc.segmentation.createGraphSegmentation(sigma, k, min_size)
        labels = graph.processImage(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return np.asarray(labels, np.int32)


def segment_scaled(rgb: Image, level: Level, engine: str = "opencv", floor_px: int = 2) -> Labels:
    """Segment with (sigma, k, min_size) of REFERENCE_PX, scaled to this image.

    Args:
        floor_px: the smallest region of a small image, however far `min_size` shrinks.
    """
    sigma, k, min_size = level
    area = rgb.shape[0] * rgb.shape[1] / REFERENCE_PX
    smallest = max(floor_px, round(min_size * area))
    return segment(rgb, sigma=sigma, k=k * area**0.5, min_size=smallest, engine=engine)


def region_mean(labels: Labels, n: int, channels: NDArray[Any]) -> Floats:
    """Return the mean of each channel [h, w, c] over each region: [n, c]."""
    flat, columns = labels.ravel(), channels.reshape(labels.size, -1)
    area = np.bincount(flat, minlength=n)
    sums = [np.bincount(flat, columns[:, i], n) for i in range(columns.shape[1])]
    return np.stack(sums, axis=1) / area[:, None]


def region_histogram(labels: Labels, n: int, bins: NDArray[np.int64], size: int) -> Floats:
    """Return the fraction of each region's pixels in each bin [h, w] of 0..size-1: [n, size]."""
    cells = labels.ravel() * np.int64(size) + bins.ravel()
    counts = np.bincount(cells, minlength=n * size).reshape(n, size)
    fractions: Floats = counts / counts.sum(axis=1, keepdims=True)
    return fractions


@dataclass(frozen=True)
class Layout:
    """The positions of the regions.

    area: [n] px. centre: [n, 2] as (x, y) in 0..1 of width and height. edge: [n] px on the image's
    rim. touching: [n, n] number of pixel pairs (4-neighbours) across each shared boundary.
    """

    n: int
    area: Floats
    centre: Floats
    edge: Floats
    touching: Floats


def layout(labels: Labels) -> Layout:
    """Return areas, centres, rim contact and adjacency of all regions."""
    h, w = labels.shape
    n = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=n).astype(float)
    x, y = (np.arange(w) + 0.5)[None] / w, (np.arange(h) + 0.5)[:, None] / h
    grid = np.stack(np.broadcast_arrays(x, y), axis=2)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    beside = labels[:, :-1].ravel() * np.int64(n) + labels[:, 1:].ravel()
    below = labels[:-1].ravel() * np.int64(n) + labels[1:].ravel()
    pairs = np.concatenate([beside, below])
    touching = np.bincount(pairs, minlength=n * n).reshape(n, n).astype(float)
    touching += touching.T
    np.fill_diagonal(touching, 0)
    return Layout(
        n=n,
        area=area,
        centre=region_mean(labels, n, grid),
        edge=np.bincount(rim, minlength=n).astype(float),
        touching=touching,
    )


def border_strip(h: int, w: int) -> NDArray[np.bool_]:
    """Return the pseudo-background [h, w]: a frame of 15 px at side 400 (DRFI)."""
    width = max(1, round(15 / 400 * max(h, w)))
    strip = np.ones((h, w), bool)
    strip[width:-width, width:-width] = False
    return strip


def unit(values: Floats) -> Floats:
    """Scale to 0..1 by the extremes; a constant becomes 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def chi_square(p: Floats, q: Floats) -> Floats:
    """Return the chi-square distance along the last axis: 0 equal .. 1 disjoint."""
    distance: Floats = 0.5 * ((p - q) ** 2 / (p + q + 1e-12)).sum(axis=-1)
    return distance


def chi_square_pairs(p: Floats) -> Floats:
    """Return the chi-square distance [n, n] of all pairs of histograms [n, bins] of sum 1.

    (p - q)^2 / (p + q) = p + q - 4 p q / (p + q), and the last term is 0 unless both bins are
    occupied: only those are visited.
    """
    p = p[:, p.any(axis=0)]
    overlap = np.zeros((len(p), len(p)))
    for i, row in enumerate(p):
        occupied = row > 0
        one, others = row[occupied], p[i:, occupied]
        overlap[i, i:] = overlap[i:, i] = (others / (others + one)) @ one
    return 1 - 2 * overlap
