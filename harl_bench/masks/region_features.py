"""DRFI's 93 features of a region: 29 of contrast, 29 of backgroundness, 35 of the region itself.

Follows spec 4.1 and the feature definitions of the authors' public MATLAB code, vectorised over
regions. Departures:

- code: zero padding at the rim; here: replicated, as the authors' C++ version; because a dark frame
  is no texture.
- code: Lab's b is scaled by b / 220 / 0.5; here: b / 220 + 0.5 like a; because the former leaves
  the histogram's range.

Letters: h w image, n regions, c channels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from harl_bench.masks import regions as r
from harl_bench.masks.regions import Floats, Image, Labels, Layout

NEAR = 0.4  # reach of regional contrast, of the longer side (DRFI)
BINS = 8  # per color axis (DRFI)
FILTER_PX, FILTER_SIGMA, ORIENTATIONS = 19, 2**0.5, 6  # DRFI's subset of the Leung-Malik bank

COLORS = tuple("RGBLabHSV")
FILTERS = (
    *(f"edge {180 * i // ORIENTATIONS}" for i in range(ORIENTATIONS)),
    *(f"bar {180 * i // ORIENTATIONS}" for i in range(ORIENTATIONS)),
    "gauss",
    "log",
    "wide log",
)
HISTOGRAMS = {"RGB": BINS**3, "Lab": BINS**3, "HSV": BINS**3, "texture": len(FILTERS), "lbp": 256}
DISTANCES = (*COLORS, *FILTERS, *(f"histogram {name}" for name in HISTOGRAMS))  # 9 + 15 + 5 = 29
# left .. bottom: 10th, 90th percentile
PLACE = ("x", "y", "left", "top", "right", "bottom", "perimeter", "aspect")
PROPERTIES = (
    *PLACE,
    *(f"variance {c}" for c in (*COLORS, *FILTERS, "lbp")),
    "area",
    "neighbour area",
)
# 29 + 29 + 35 = 93
NAMES = (
    *(f"contrast {name}" for name in DISTANCES),
    *(f"backgroundness {name}" for name in DISTANCES),
    *PROPERTIES,
)


@dataclass(frozen=True)
class Channels:
    """The pixels' numbers, whatever the regions.

    values: [25, h, w], nine color channels in 0..1, fifteen filter responses in 0..1, the LBP code
        0..255.
    squares: the squared values, for variances.
    bins: one [h, w] bin number for each of HISTOGRAMS.
    """

    values: Floats
    squares: Floats
    bins: tuple[NDArray[np.int64], ...]


def channels(rgb: Image) -> Channels:
    """Return the colors, textures and their bins of an image [h, w, 3]."""
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    # 0.5: the default of MATLAB's fspecial
    smooth = cv2.GaussianBlur(rgb, (5, 5), 0.5).astype(np.float32) / 255
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB) / (100, 220, 220) + (0, 0.5, 0.5)
    hsv = cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV) / (360, 1, 1)
    texture = textures(grey)
    lbp = local_binary_pattern(grey)
    planes = [np.moveaxis(cube, 2, 0) for cube in (smooth, lab, hsv, texture, lbp[..., None])]
    values = np.concatenate(planes, dtype=np.float64)
    bins = (_cube(smooth), _cube(lab), _cube(hsv), texture.argmax(axis=2), lbp.astype(np.int64))
    return Channels(values, values**2, bins)


def textures(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the filters' absolute responses, each scaled to 0..1 over the image: [h, w, 15]."""
    import cv2

    image = grey.astype(np.float32) / 255
    rim = cv2.BORDER_REPLICATE
    responses = [np.abs(cv2.filter2D(image, -1, f, borderType=rim)) for f in filter_bank()]
    return np.stack([(v - v.min()) / (v.max() - v.min() + 1e-6) for v in responses], axis=2)


@cache
def filter_bank() -> tuple[NDArray[np.float32], ...]:
    """Return fifteen filters [19, 19] of zero mean and unit L1 norm (Leung, Malik).

    They are edges, bars, a Gaussian and two Laplacians.
    """
    half = FILTER_PX // 2
    x, y = np.meshgrid(np.arange(-half, half + 1), np.arange(half, -half - 1, -1))
    bank: list[Floats] = []
    for order in (1, 2):
        for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
            along = np.cos(angle) * x - np.sin(angle) * y
            across = np.sin(angle) * x + np.cos(angle) * y
            bank.append(_gauss(along, 3 * FILTER_SIGMA, 0) * _gauss(across, FILTER_SIGMA, order))
    squared = x**2 + y**2
    for sigma, laplacian in ((FILTER_SIGMA, False), (FILTER_SIGMA, True), (3 * FILTER_SIGMA, True)):
        gauss = np.exp(-squared / (2 * sigma**2))
        bank.append(gauss / gauss.sum() * ((squared - 2 * sigma**2) / sigma**4 if laplacian else 1))
    centred = [f - f.mean() for f in bank]
    return tuple((f / np.abs(f).sum()).astype(np.float32) for f in centred)


def local_binary_pattern(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [h, w] with one bit for each of 8 neighbours in the image brighter than the pixel."""
    h, w = grey.shape
    padded = np.pad(grey, 1)  # 0 is never brighter
    code = np.zeros((h, w), np.uint8)
    steps = [(dy, dx) for dy in (0, 1, 2) for dx in (0, 1, 2) if (dy, dx) != (1, 1)]
    for bit, (dy, dx) in enumerate(steps):
        code |= (padded[dy : dy + h, dx : dx + w] > grey).astype(np.uint8) << np.uint8(bit)
    return code


def features(labels: Labels, pixels: Channels) -> NDArray[np.float32]:
    """Return the 93 features of every region, [n, 93], in the order of NAMES."""
    layout = r.layout(labels)
    strip = r.border_strip(*labels.shape)
    means = _means(labels, layout, pixels.values)
    around = pixels.values[:, strip].mean(axis=1)
    weight = _weights(layout, labels.shape)
    cues = len(COLORS) + len(FILTERS)
    contrast = [_weighted_differences(means[:, :cues], weight)]
    background = [np.abs(means[:, :cues] - around[:cues])]
    for bins, size in zip(pixels.bins, HISTOGRAMS.values(), strict=True):
        fractions = r.region_histogram(labels, layout.n, bins, size)
        outer = np.bincount(bins[strip], minlength=size) / strip.sum()
        used = (outer > 0) | (fractions > 0).any(axis=0)
        fractions, outer = fractions[:, used], outer[used]
        contrast.append((weight * r.chi_square_pairs(fractions)).sum(axis=1)[:, None])
        background.append(r.chi_square(fractions, outer)[:, None])
    properties = _properties(labels, layout, means, _means(labels, layout, pixels.squares))
    return np.concatenate([*contrast, *background, properties], axis=1, dtype=np.float32)


def _means(labels: Labels, layout: Layout, planes: Floats) -> Floats:
    """Return the mean of each plane [c, h, w] over each region: [n, c]."""
    flat = labels.ravel()
    sums = [np.bincount(flat, plane.ravel(), layout.n) for plane in planes]
    return np.stack(sums, axis=1) / layout.area[:, None]


def _weights(layout: Layout, shape: tuple[int, ...]) -> Floats:
    """Return the nearness of regions' centres, [n, n], rows sum to 1."""
    from scipy.spatial.distance import cdist

    h, w = shape
    centre = layout.centre * (w, h) / max(h, w)
    near = np.exp(-cdist(centre, centre) / NEAR)
    weight: Floats = near / near.sum(axis=1, keepdims=True)
    return weight


def _weighted_differences(means: Floats, weight: Floats) -> Floats:
    """Return each channel's mean difference from all other regions, [n, c]."""
    return np.stack([(weight * np.abs(m[:, None] - m)).sum(axis=1) for m in means.T], axis=1)


def _properties(labels: Labels, layout: Layout, means: Floats, squares: Floats) -> Floats:
    """Return the 35 properties, [n, 35]: position, variance, size.

    `means` and `squares` are the means of the channels and of their squares.
    """
    h, w = labels.shape
    area = layout.area[:, None]
    variance = np.maximum(squares - means**2, 0) * area / np.maximum(area - 1, 1)
    variance[:, -1] *= 1e-4  # the LBP code's, into the range of the others (authors' C++ version)
    left, right = _percentiles(labels, layout, axis=1)
    top, bottom = _percentiles(labels, layout, axis=0)
    # one pixel more, so that a line has an aspect
    aspect = (right - left + 1 / w) / (bottom - top + 1 / h)
    perimeter = np.bincount(labels[_outlines(labels)], minlength=layout.n) / (w + h)
    where = np.stack([*layout.centre.T, left, top, right, bottom, perimeter, aspect], axis=1)
    fraction = np.stack([layout.area, (layout.touching > 0) @ layout.area], axis=1) / (h * w)
    return np.concatenate([where, variance, fraction], axis=1)


def _percentiles(labels: Labels, layout: Layout, axis: int) -> tuple[Floats, Floats]:
    """Return the regions' 10th and 90th percentile along an axis (0: y, 1: x), [n] in 0..1."""
    side = labels.shape[axis]
    position = np.arange(side) if axis == 1 else np.arange(side)[:, None]
    cells = (labels * np.int64(side) + position).ravel()
    counts = np.bincount(cells, minlength=layout.n * side).reshape(-1, side)
    reached = counts.cumsum(axis=1)
    low, high = (
        ((reached >= np.ceil(fraction * layout.area)[:, None]).argmax(axis=1) + 0.5) / side
        for fraction in (0.1, 0.9)
    )
    return low, high


def _outlines(labels: Labels) -> NDArray[np.bool_]:
    """Return the pixels [h, w] with a 4-neighbour of another region, or on the rim."""
    edge = np.ones(labels.shape, bool)
    inner = labels[1:-1, 1:-1]
    sides = (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:])
    edge[1:-1, 1:-1] = np.any([side != inner for side in sides], axis=0)
    return edge


def _gauss(x: Floats, sigma: float, order: int) -> Floats:
    """Return a Gaussian or its first or second derivative, up to a factor."""
    polynomial = (np.ones_like(x), -x / sigma**2, (x**2 - sigma**2) / sigma**4)[order]
    return np.exp(-(x**2) / (2 * sigma**2)) * polynomial


def _cube(color: Floats | NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bin of each pixel's color [h, w, 3] in 0..1."""
    axis = np.clip((color * BINS).astype(np.int64), 0, BINS - 1)
    cube: NDArray[np.int64] = (axis[..., 0] * BINS + axis[..., 1]) * BINS + axis[..., 2]
    return cube
