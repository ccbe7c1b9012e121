"""Procedural textures: scalar fields in [0, 1], colored through a palette.

Letters: h, w are pixels of the canvas; a field is `[h, w] float32`, a canvas `[h, w, 3] float32` in
[0, 1].
"""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Random = np.random.Generator


def noise(
    random: Random, h: int, w: int, *, cells: int = 3, octaves: int = 5, roughness: float = 0.5
) -> Array:
    """Clouds: random grids, each twice as fine and weaker by `roughness`, enlarged smoothly and
    summed.
    """
    field = np.zeros((h, w), np.float32)
    for octave in range(octaves):
        columns = cells * 2**octave
        rows = max(2, round(columns * h / w))
        grid = random.random((rows, columns), dtype=np.float32)
        field += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(
            roughness**octave
        )
    return _stretched(field)


def stripes(random: Random, h: int, w: int) -> Array:
    """Wavy bands; the sharpness of their edges varies from cloth to fence."""
    angle, waves = random.uniform(0, np.pi), random.uniform(4, 14)
    y, x = _grid(h, w)
    phase = waves * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 1.2) * noise(
        random, h, w, octaves=2
    )
    return np.asarray(
        0.5 + 0.5 * np.tanh(random.uniform(0.8, 5) * np.sin(2 * np.pi * phase)), np.float32
    )


def gradient(random: Random, h: int, w: int) -> Array:
    """A slow passage of light, straight or around a point, with a little cloud in it."""
    y, x = _grid(h, w)
    if random.random() < 0.5:
        angle = random.uniform(0, 2 * np.pi)
        field = x * np.cos(angle) + y * np.sin(angle)
    else:
        field = np.hypot(x - random.random(), y - random.random())
    return _stretched(np.asarray(_stretched(field) + 0.25 * noise(random, h, w), np.float32))


def cells(random: Random, h: int, w: int) -> Array:
    """Pebbles: each pixel takes the value of its nearest random point, darker at the joints."""
    count = int(random.integers(25, 110))
    ground = np.full((h, w), 255, np.uint8)
    ground[random.integers(0, h, count), random.integers(0, w, count)] = 0
    distance, owner = cv2.distanceTransformWithLabels(
        ground, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = random.random(int(owner.max()) + 1, dtype=np.float32)
    dome = 1 - (distance / max(float(distance.max()), 1.0)) ** 2
    return _stretched(np.asarray(values[owner] * 0.65 + dome * 0.35, np.float32))


def bricks(random: Random, h: int, w: int) -> Array:
    """Courses of bricks, each of its own shade, with joints between them."""
    course = random.uniform(0.07, 0.16)
    length = course * random.uniform(1.2, 2.8)
    y, x = _grid(h, w)
    row = np.floor(y / course).astype(int)
    along = x / length + 0.5 * (row % 2)
    column = np.floor(along).astype(int)
    shades = random.random((64, 64), dtype=np.float32)[row % 64, column % 64]
    joint = np.minimum(y / course - row, (along - column) * length / course)
    return np.asarray(
        np.where(joint < 0.12, 0.0, 0.35 + 0.5 * shades) + 0.15 * noise(random, h, w), np.float32
    )


FIELDS: dict[str, Callable[[Random, int, int], Array]] = {
    "noise": noise,
    "stripes": stripes,
    "gradient": gradient,
    "cells": cells,
    "bricks": bricks,
}


def background(random: Random, h: int, w: int) -> Array:
    """One texture, or two that meet at a slanted horizon as floor and wall do, under uneven
    light.
    """
    canvas = _colored(random, h, w)
    if random.random() < 0.45:
        y, x = _grid(h, w)
        horizon = y - random.uniform(0.35, 0.65) - random.uniform(-0.3, 0.3) * (x - 0.5)
        share = np.clip(horizon * min(h, w) / 2 + 0.5, 0, 1)[..., None]
        canvas = np.asarray(canvas * (1 - share) + _colored(random, h, w) * share, np.float32)
    light = 0.8 + 0.35 * gradient(random, h, w)
    return np.asarray(canvas * light[..., None], np.float32)


def _colored(random: Random, h: int, w: int) -> Array:
    names = sorted(FIELDS)
    field = FIELDS[names[int(random.integers(len(names)))]](random, h, w)
    field = 0.8 * field + 0.2 * noise(random, h, w, cells=12, octaves=3)
    return painted(
        field, palette(random, float(random.random()), float(random.uniform(0.08, 0.55)))
    )


def palette(random: Random, hue: float, saturation: float) -> Array:
    """Three neighbouring colors from dark to light, `[3, 3] float32`."""
    dark = random.uniform(0.15, 0.45)
    values = np.linspace(dark, dark + random.uniform(0.2, 0.5), 3)
    hues = hue + np.cumsum(random.uniform(-0.05, 0.05, 3))
    return np.asarray(
        [colorsys.hsv_to_rgb(a % 1, saturation, b) for a, b in zip(hues, values, strict=True)],
        np.float32,
    )


def painted(field: Array, colors: Array) -> Array:
    """A field as color: 0 becomes the first color, 1 the last."""
    at = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(field, at, colors[:, c]) for c in range(3)], -1).astype(np.float32)


def _grid(h: int, w: int) -> tuple[Array, Array]:
    """Coordinates in units of the longer side."""
    y, x = np.mgrid[:h, :w].astype(np.float32) / max(h, w)
    return y, x


def _stretched(field: NDArray[np.floating]) -> Array:
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(high - low, 1e-6), np.float32)
