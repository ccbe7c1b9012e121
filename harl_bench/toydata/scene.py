"""Composed images: solids on a textured ground, with shadows, occlusion, truncation and exact visible pixels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harl_bench.toydata.shape import NAMES, solid
from harl_bench.toydata.texture import Array, Random, background

FINE = 3  # everything is drawn this much finer and averaged down: smooth edges
LEAST_VISIBLE = (
    0.4  # a later thing that would leave less of an earlier one than this is drawn again
)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """One labelled object (or, with `crowd`, one group) and its visible pixels `[H, W]`."""

    name: str
    visible: Mask
    cut: float  # fraction outside the image
    hidden: float  # fraction of the rest that other things cover
    crowd: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The x, y, width and height around the visible pixels."""
        x, y, width, height = cv2.boundingRect(self.visible.astype(np.uint8))
        return x, y, width, height


@dataclass(frozen=True)
class Scene:
    """An image `[H, W, 3] uint8 RGB` and its things, from back to front."""

    image: NDArray[np.uint8]
    things: list[Thing]

    def save(self, path: Path, random: Random) -> None:
        """Write the image as JPEG with a quality such as cameras and web sites use."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.image).save(path, quality=int(random.integers(72, 96)))


def some_names(random: Random, most: int) -> list[str]:
    """Return one to `most` names of shapes."""
    return [str(name) for name in random.choice(NAMES, random.integers(1, most + 1))]


def compose(
    random: Random,
    names: Iterable[str],
    side_px: int,
    *,
    radii: tuple[float, float],
    tiny: float = 0.0,
    group: bool = False,
) -> Scene:
    """Draw an image with one thing per name.

    Args:
        names: the shapes, back to front.
        side_px: about the longer side; any size near it, either orientation, up to 3:2, as cameras give them.
        radii: range of a thing's radius as a fraction of the shorter side (log-uniform).
        tiny: probability that a thing is far smaller than that.
        group: begin with a crowd: many small solids of one shape under one label.
    """
    short = int(random.integers(round(0.73 * side_px), side_px + 1))
    long = round(short * random.uniform(1.0, 1.5))
    height, width = (short, long) if random.random() < 0.6 else (long, short)
    stage = _Stage(random, height, width)
    if group:
        stage.add_group(NAMES[random.integers(len(NAMES))])
    for name in names:
        stage.add(name, radii if random.random() >= tiny else (0.035, 0.055))
    return stage.scene()


class _Stage:
    """The fine canvas while things are put on it; `owner` is the number of the thing in a pixel, 0 the ground's."""

    def __init__(self, random: Random, height: int, width: int) -> None:
        self.random = random
        self.canvas = background(random, height * FINE, width * FINE)
        self.owner = np.zeros(self.canvas.shape[:2], np.int16)
        self.things: list[tuple[str, float, float, bool]] = []  # name, fraction cut, area, crowd
        direction = random.uniform(0, 2 * np.pi)
        self.light = np.array([0.62 * np.cos(direction), 0.62 * np.sin(direction), 0.78])

    def add(self, name: str, radii: tuple[float, float]) -> None:
        """Place a thing at random, again if it hides an earlier one too much, lies too far outside, or blends in."""
        random, (h, w) = self.random, self.owner.shape
        for _ in range(30):
            radius = float(np.exp(random.uniform(*np.log(radii)))) * min(h, w)
            x, y = random.uniform(0, w), random.uniform(0, h)
            inside, color, cut = self._draw(name, radius, x, y)
            left = np.bincount(self.owner[~inside], minlength=len(self.things) + 1)[1:]
            visible = all(
                n >= LEAST_VISIBLE * thing[2] for n, thing in zip(left, self.things, strict=True)
            )
            if cut < 0.45 and visible and self._stands_out(inside, color):
                self._paint(inside, color, radius)
                self.things.append((name, cut, float(inside.sum()), False))
                return

    def add_group(self, name: str) -> None:
        """Eight to fourteen small solids side by side, under one label."""
        random, (h, w) = self.random, self.owner.shape
        radius = random.uniform(0.05, 0.08) * min(h, w)
        columns = int(random.integers(3, 6))
        middle = np.array([random.uniform(0.35, 0.65) * w, random.uniform(0.35, 0.65) * h])
        area = 0.0
        for i in range(random.integers(8, 15)):
            offset = np.array([i % columns - (columns - 1) / 2, i // columns - 1.0])
            x, y = middle + (offset * 1.9 + random.normal(0, 0.2, 2)) * radius
            inside, color, _ = self._draw(name, radius, x, y)
            area += float(inside.sum())
            self._paint(inside, color, radius)
        self.things.append((name, 0.0, area, True))

    def scene(self) -> Scene:
        """Average down; a pixel belongs to the thing that covers more than half of it."""
        height, width = (n // FINE for n in self.owner.shape)
        small = cv2.resize(
            np.clip(self.canvas, 0, 1), (width, height), interpolation=cv2.INTER_AREA
        )
        grain = self.random.normal(0, self.random.uniform(0.004, 0.03), small.shape)
        image = np.clip((small + grain) * 255, 0, 255).round().astype(np.uint8)
        things = []
        for number, (name, cut, area, crowd) in enumerate(self.things, 1):
            pixels = self.owner == number
            covered = pixels.reshape(height, FINE, width, FINE).sum((1, 3))
            visible = covered * 2 > FINE * FINE
            if visible.any():
                things.append(
                    Thing(name, visible, cut, max(0.0, 1 - float(pixels.sum()) / area), crowd)
                )
        return Scene(image, things)

    def _draw(self, name: str, radius: float, x: float, y: float) -> tuple[Mask, Array, float]:
        """Return a solid's pixels `[h, w]` and colors `[h, w, 3]` on an empty canvas, and the fraction cut off."""
        window, colors = solid(self.random, name, radius, self.light)
        half = window.shape[0] // 2
        shift = np.array([[1, 0, round(x) - half], [0, 1, round(y) - half]], np.float32)
        size = self.owner.shape[::-1]
        inside = cv2.warpAffine(window, shift, size, flags=cv2.INTER_NEAREST).astype(bool)
        cut = float(1 - inside.sum() / max(window.sum(), 1))
        return inside, cv2.warpAffine(colors, shift, size, flags=cv2.INTER_NEAREST), cut

    def _stands_out(self, inside: Mask, color: Array) -> bool:
        return bool(np.abs(color[inside] - self.canvas[inside]).sum(-1).mean() > 0.35)

    def _paint(self, inside: Mask, color: Array, radius: float) -> None:
        """Put a solid and its soft shadow on the canvas."""
        half = np.ceil(radius) + 2
        x, y = -0.22 * half * self.light[:2]
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        cast = cv2.warpAffine(inside.astype(np.float32), shift, inside.shape[::-1])
        blur = 2 * int(half * 0.12) + 1
        soft = cv2.blur(cv2.blur(cast, (blur, blur)), (blur, blur))
        self.canvas *= (1 - 0.45 * soft)[..., None]
        self.canvas[inside] = color[inside]
        self.owner[inside] = len(self.things) + 1
