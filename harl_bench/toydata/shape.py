"""The five shapes and how they are painted: a bevelled solid under one light, with a pattern.

The outline makes the class. Its hue nearly tells it as well, its pattern half of the time.
"""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from harl_bench.toydata.texture import Array, Random, noise

Numbers = NDArray[np.float64]
LEANING = 0.5  # how often a shape wears the pattern of its class
HUE_SPREAD = 0.03  # standard deviation, in turns; the classes' hues are 0.2 turns apart


# The radii of each shape's outlines within the unit circle; a second one is a hole.
RADII: dict[str, Callable[[Random], list[Numbers]]] = {
    "disc": lambda random: [np.ones(96)],
    "box": lambda random: [np.ones(4)],
    "triangle": lambda random: [np.ones(3)],
    "star": lambda random: [np.tile([1, random.uniform(0.38, 0.52)], 5)],
    "ring": lambda random: [np.ones(96), np.full(96, random.uniform(0.42, 0.62))],
}
NAMES = tuple(RADII)
PATTERNS = ("plain", "stripes", "dots", "checks", "clouds")  # each NAMES' own


def solid(
    random: Random, name: str, radius_px: float, light: Numbers
) -> tuple[NDArray[np.uint8], Array]:
    """Return a shape of random turn, squeeze, hue and pattern in the middle of a square window.

    Args:
        radius_px: of the circle around it.
        light: unit vector x, y, z towards the light.

    Returns:
        its pixels, `[s, s]` of 0 and 1, and colors in [0, 1], `[s, s, 3]`.
    """
    half = int(np.ceil(radius_px)) + 2
    turn, squeeze = random.uniform(0, 2 * np.pi), random.uniform(0.68, 1.0)
    c, s = np.cos(turn), np.sin(turn)
    shape_to_px = radius_px * np.array([[c, -s], [s, c]]) @ np.diag([1.0, squeeze])
    inside = np.zeros((2 * half, 2 * half), np.uint8)
    outlines = [_outline(radii) @ shape_to_px.T + half for radii in RADII[name](random)]
    cv2.fillPoly(inside, [points.round().astype(np.int32) for points in outlines], 1)  # even-odd
    y, x = np.mgrid[: 2 * half, : 2 * half].astype(np.float32) - half
    u, v = np.tensordot(np.linalg.inv(shape_to_px).astype(np.float32), np.stack([x, y]), 1)
    color = _surface(random, name, u, v)
    diffuse, shine = _relief(inside, random.uniform(0.25, 0.9) * radius_px, light)
    color = color * (0.42 + 0.68 * diffuse)[..., None]
    color = color + (random.uniform(0.0, 0.7) * shine)[..., None]
    return inside, np.clip(color, 0, 1)


def _outline(radii: Numbers) -> Numbers:
    """Return the corners x, y `[N, 2]` at these distances from the middle and at equal angles."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) - np.pi / 2
    return np.stack([radii * np.cos(angle), radii * np.sin(angle)], 1)


def _surface(random: Random, name: str, u: Array, v: Array) -> Array:
    """Return two shades of one hue, laid out by a pattern in the shape's own coordinates."""
    label = NAMES.index(name)
    hue = (label / len(NAMES) + random.normal(0, HUE_SPREAD)) % 1
    saturation, value = random.uniform(0.35, 0.9), random.uniform(0.55, 0.95)
    first = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    hue = (hue + random.normal(0, 0.06)) % 1
    second = np.array(colorsys.hsv_to_rgb(hue, saturation * 0.75, value * 0.5))
    leans = random.random() < LEANING
    pattern = PATTERNS[label if leans else random.integers(len(PATTERNS))]
    waves = random.uniform(2.2, 5)
    fraction = np.zeros_like(u)
    if pattern == "stripes":
        fraction = np.sin(np.pi * waves * u) > random.uniform(-0.3, 0.5)
    elif pattern == "dots":
        distance = np.hypot((u * waves) % 1 - 0.5, (v * waves) % 1 - 0.5)
        fraction = distance < random.uniform(0.2, 0.36)
    elif pattern == "checks":
        fraction = np.sin(np.pi * waves * u) * np.sin(np.pi * waves * v) > 0
    elif pattern == "clouds":
        fraction = noise(random, *u.shape, cells=int(random.integers(3, 6)), octaves=3)
    fraction = fraction.astype(np.float32)[..., None] * random.uniform(0.45, 0.95)
    return np.asarray(first * (1 - fraction) + second * fraction, np.float32)


def _relief(inside: NDArray[np.uint8], bevel_px: float, light: Numbers) -> tuple[Array, Array]:
    """Return diffuse light and highlight of a cushion whose edge is `bevel_px` wide."""
    depth = np.minimum(cv2.distanceTransform(inside, cv2.DIST_L2, 5) / bevel_px, 1)
    height = np.sqrt(1 - (1 - depth) ** 2) * bevel_px * 0.8
    height = cv2.GaussianBlur(height, (0, 0), max(1.0, bevel_px / 12))
    slope_y, slope_x = np.gradient(height)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    halfway = light + np.array([0, 0, 1.0])
    halfway /= np.linalg.norm(halfway)
    diffuse, shine = np.clip(normal @ light, 0, 1), np.clip(normal @ halfway, 0, 1) ** 40
    return diffuse.astype(np.float32), shine.astype(np.float32)
