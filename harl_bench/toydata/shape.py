"""The five shapes and how they are painted: a bevelled solid under one light, its surface
patterned.

Shape, size, turn and squeeze make the class; hue and pattern only lean towards it, so that neither
tells it alone.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from harl_bench.toydata.texture import Array, Random, noise

Points = NDArray[np.float64]  # [N, 2] corners x y of a closed outline within the unit circle
LEANING = 0.5  # how often a shape wears the pattern of its class
HUE_SPREAD = 0.06  # standard deviation, in turns; the classes' hues are 0.2 turns apart


def _circle(radius: float = 1.0) -> Points:
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _polygon(radii: list[float]) -> Points:
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) - np.pi / 2
    corners: Points = np.asarray(radii)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return corners


def _disc(random: Random) -> list[Points]:
    return [_circle()]


def _box(random: Random) -> list[Points]:
    return [_polygon([1.0] * 4)]


def _triangle(random: Random) -> list[Points]:
    return [_polygon([1.0] * 3)]


def _star(random: Random) -> list[Points]:
    return [_polygon([1.0, float(random.uniform(0.38, 0.52))] * 5)]


def _ring(random: Random) -> list[Points]:
    return [_circle(), _circle(float(random.uniform(0.42, 0.62)))]


OUTLINES: dict[str, Callable[[Random], list[Points]]] = {
    "disc": _disc,
    "box": _box,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
}
NAMES = tuple(OUTLINES)
PATTERNS = (
    "plain",
    "stripes",
    "dots",
    "checks",
    "clouds",
)  # in the order of NAMES: the pattern a class leans to


@dataclass(frozen=True)
class Solid:
    """A painted shape on its own window: `inside [s, s] bool`, `color [s, s, 3]`, window corner (x,
    y) in pixels.
    """

    inside: NDArray[np.bool_]
    color: Array
    corner: tuple[int, int]


def solid(
    random: Random, name: str, *, centre: tuple[float, float], radius_px: float, light: Points
) -> Solid:
    """Draw one shape of random turn, squeeze, hue and pattern.

    Args:
        centre: x, y of its middle on the canvas, pixels.
        radius_px: of the circle around it.
        light: unit vector x, y, z towards the light.
    """
    half = int(np.ceil(radius_px)) + 2
    corner = (round(centre[0]) - half, round(centre[1]) - half)
    turn, squeeze = random.uniform(0, 2 * np.pi), random.uniform(0.68, 1.0)
    c, s = np.cos(turn), np.sin(turn)
    shape_to_px = radius_px * np.array([[c, -s], [s, c]]) @ np.diag([1.0, squeeze])
    inside = np.zeros((2 * half, 2 * half), np.uint8)
    outlines = [
        np.round(points @ shape_to_px.T + half).astype(np.int32)
        for points in OUTLINES[name](random)
    ]
    cv2.fillPoly(inside, outlines, 1)  # even-odd: the inner outline of a ring is its hole
    y, x = np.mgrid[: 2 * half, : 2 * half].astype(np.float32) - half
    u, v = np.tensordot(np.linalg.inv(shape_to_px).astype(np.float32), np.stack([x, y]), 1)
    color = _surface(random, name, u, v)
    diffuse, shine = _relief(inside, random.uniform(0.25, 0.9) * radius_px, light)
    gloss = random.uniform(0.0, 0.7)
    color = color * (0.42 + 0.68 * diffuse)[..., None] + (gloss * shine)[..., None]
    return Solid(inside.astype(bool), np.asarray(np.clip(color, 0, 1), np.float32), corner)


def _surface(random: Random, name: str, u: Array, v: Array) -> Array:
    """Two shades of one hue, laid out by a pattern in the shape's own coordinates."""
    label = NAMES.index(name)
    hue = (label / len(NAMES) + random.normal(0, HUE_SPREAD)) % 1
    saturation, value = random.uniform(0.35, 0.9), random.uniform(0.55, 0.95)
    first = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    second = np.array(
        colorsys.hsv_to_rgb((hue + random.normal(0, 0.06)) % 1, saturation * 0.75, value * 0.5)
    )
    pattern = (
        PATTERNS[label]
        if random.random() < LEANING
        else PATTERNS[int(random.integers(len(PATTERNS)))]
    )
    waves = random.uniform(2.2, 5)
    if pattern == "stripes":
        share = np.sin(np.pi * waves * u) > random.uniform(-0.3, 0.5)
    elif pattern == "dots":
        share = np.hypot((u * waves) % 1 - 0.5, (v * waves) % 1 - 0.5) < random.uniform(0.2, 0.36)
    elif pattern == "checks":
        share = np.sin(np.pi * waves * u) * np.sin(np.pi * waves * v) > 0
    elif pattern == "clouds":
        share = noise(random, *u.shape, cells=int(random.integers(3, 6)), octaves=3)
    else:
        share = np.zeros_like(u)
    share = np.asarray(share, np.float32)[..., None] * random.uniform(0.45, 0.95)
    return np.asarray(first * (1 - share) + second * share, np.float32)


def _relief(inside: NDArray[np.uint8], bevel_px: float, light: Points) -> tuple[Array, Array]:
    """Diffuse light and highlight of a cushion whose edge is `bevel_px` wide."""
    depth = np.minimum(
        cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 5)[1:-1, 1:-1] / bevel_px, 1
    )
    height = np.sqrt(1 - (1 - depth) ** 2) * bevel_px * 0.8
    height = cv2.GaussianBlur(height, (0, 0), max(1.0, bevel_px / 12))
    slope_y, slope_x = np.gradient(height)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    halfway = light + np.array([0, 0, 1.0])
    halfway /= np.linalg.norm(halfway)
    diffuse = np.clip(normal @ light, 0, 1)
    return np.asarray(diffuse, np.float32), np.asarray(
        np.clip(normal @ halfway, 0, 1) ** 40, np.float32
    )
