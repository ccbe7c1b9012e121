"""Procedural textures: scalar fields in [0, 1], and grounds colored by them.

Letters: h, w are pixels of the canvas. A field is `[h, w] float32`, a canvas `[h, w, 3] float32`.
"""

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Random = np.random.Generator


def noise(random: Random, h: int, w: int, *, cells: int = 3, octaves: int = 5) -> Array:
    """Return clouds: random grids, each twice as fine and half as strong, enlarged and summed."""
    field = np.zeros((h, w), np.float32)
    for octave in range(octaves):
        columns = cells * 2**octave
        rows = max(2, round(columns * h / w))
        grid = random.random((rows, columns), dtype=np.float32)
        field += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
    return _stretched(field)


def gradient(random: Random, h: int, w: int) -> Array:
    """Return a slow passage of light, straight or around a point, with a little cloud in it."""
    y, x = _grid(h, w)
    if random.random() < 0.5:
        angle = random.uniform(0, 2 * np.pi)
        field = x * np.cos(angle) + y * np.sin(angle)
    else:
        field = np.hypot(x - random.random(), y - random.random())
    return _stretched(_stretched(field) + 0.25 * noise(random, h, w))


FIELDS = (gradient, noise)


def background(random: Random, h: int, w: int, *, gray: bool = False) -> Array:
    """Return one texture, or two that meet at a slanted horizon, under uneven light `[h, w, 3]`."""
    canvas = _colored(random, h, w, gray)
    if random.random() < 0.45:
        y, x = _grid(h, w)
        horizon = y - random.uniform(0.35, 0.65) - random.uniform(-0.3, 0.3) * (x - 0.5)
        fraction = np.clip(horizon * min(h, w) / 2 + 0.5, 0, 1)[..., None]
        canvas = canvas * (1 - fraction) + _colored(random, h, w, gray) * fraction
    light = 0.8 + 0.35 * gradient(random, h, w)
    return np.asarray(canvas * light[..., None], np.float32)


def _colored(random: Random, h: int, w: int, gray: bool) -> Array:
    """Return a random field in three neighboring colors, from dark to light."""
    field = FIELDS[random.integers(len(FIELDS))](random, h, w)
    field = 0.8 * field + 0.2 * noise(random, h, w, cells=12, octaves=3)
    hue, saturation, dark = random.random(), random.uniform(0.08, 0.55), random.uniform(0.15, 0.45)
    values = np.linspace(dark, dark + random.uniform(0.2, 0.5), 3)
    saturation = 0.0 if gray else saturation
    hues = (hue + np.cumsum(random.uniform(-0.05, 0.05, 3))) % 1
    colors = [colorsys.hsv_to_rgb(a, saturation, v) for a, v in zip(hues, values, strict=True)]
    channels = np.array(colors, np.float32).T
    canvas = np.stack([np.interp(field, (0, 0.5, 1), c) for c in channels], -1)
    return np.asarray(canvas, np.float32)


def _grid(h: int, w: int) -> Array:
    """Return the coordinates y, x of all pixels, in units of the longer side, `[2, h, w]`."""
    return np.asarray(np.mgrid[:h, :w].astype(np.float32) / max(h, w))


def _stretched(field: NDArray[np.floating]) -> Array:
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(high - low, 1e-6), np.float32)
