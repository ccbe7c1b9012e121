"""Composed images: solids on a textured ground, with shadows, occlusion and truncation."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harl_bench.toydata.shape import NAMES, solid
from harl_bench.toydata.texture import Array, Random, background

FINE = 2  # everything is drawn this much finer and averaged down: smooth edges
LEAST_VISIBLE = 0.4  # fraction of a thing that later ones leave
Mask = NDArray[np.bool_]


@dataclass
class Thing:
    """A labelled object, or a group; the last two fields are known when everything is drawn."""

    name: str
    cut: float  # fraction outside the image
    area: int  # pixels of the fine canvas
    crowd: bool = False
    visible: Mask = field(init=False)  # [H, W]
    hidden: float = field(init=False)  # fraction of its area that other things cover

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return x, y, width and height around the visible pixels."""
        x, y, width, height = cv2.boundingRect(self.visible.astype(np.uint8))
        return x, y, width, height


def compose(
    path: Path,
    names: Iterable[str],
    side_px: int,
    random: Random,
    radii: tuple[float, float],
    tiny: float = 0.0,
    group: bool = False,
    gray: bool = False,
) -> tuple[int, int, list[Thing]]:
    """Write a JPEG of the named shapes; return its height, its width and what is visible in it.

    Args:
        names: from back to front.
        side_px: about the longer side; sizes and orientations vary as cameras and crops give them.
        radii: range of a thing's radius as a fraction of the shorter side (log-uniform).
        tiny: probability that a thing is far smaller than that.
        group: begin with a crowd: many small solids of one shape under one label.
        gray: the ground has no color, so that hue says what the thing is.
    """
    short = int(random.integers(round(0.73 * side_px), side_px + 1))
    long = round(short * random.uniform(1.0, 1.5))
    height, width = (short, long) if random.random() < 0.6 else (long, short)
    stage = _Stage(random, height, width, gray=gray)
    if group:
        stage.add_group(NAMES[random.integers(len(NAMES))])
    for name in names:
        stage.add(name, radii if random.random() >= tiny else (0.035, 0.055))
    small = cv2.resize(stage.canvas.clip(0, 1), (width, height), interpolation=cv2.INTER_AREA)
    grain = random.normal(0, random.uniform(0.004, 0.03), small.shape)
    image = np.clip((small + grain) * 255, 0, 255).round().astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=int(random.integers(72, 96)))
    for number, thing in enumerate(stage.things, 1):
        pixels = stage.owner == number
        covered = pixels.reshape(height, FINE, width, FINE).sum((1, 3))
        thing.visible = covered * 2 > FINE * FINE
        thing.hidden = 1 - int(pixels.sum()) / thing.area
    return height, width, [thing for thing in stage.things if thing.visible.any()]


class _Stage:
    """The fine canvas; `owner` numbers the thing that a pixel shows, from 1; 0 is the ground."""

    def __init__(self, random: Random, height: int, width: int, *, gray: bool) -> None:
        self.random = random
        self.canvas = background(random, height * FINE, width * FINE, gray=gray)
        self.owner = np.zeros((height * FINE, width * FINE), np.int16)
        self.things: list[Thing] = []
        direction = random.uniform(0, 2 * np.pi)
        self.light = np.array([0.62 * np.cos(direction), 0.62 * np.sin(direction), 0.78])

    def add(self, name: str, radii: tuple[float, float]) -> None:
        """Put a thing at random; again if it hides others, lies too far outside or blends in."""
        random, (h, w) = self.random, self.owner.shape
        for _ in range(30):
            radius = float(np.exp(random.uniform(*np.log(radii)))) * min(h, w)
            x, y = random.uniform(0, w), random.uniform(0, h)
            inside, color, cut = self._draw(name, radius, x, y)
            left = np.bincount(self.owner[~inside], minlength=len(self.things) + 1)[1:]
            if cut >= 0.45 or (left < [LEAST_VISIBLE * thing.area for thing in self.things]).any():
                continue
            if np.abs(color[inside] - self.canvas[inside]).sum(-1).mean() > 0.35:
                self._paint(inside, color, radius)
                self.things.append(Thing(name, cut, int(inside.sum())))
                return

    def add_group(self, name: str) -> None:
        """Put eight to fourteen small solids side by side, under one label."""
        random, (h, w) = self.random, self.owner.shape
        radius = random.uniform(0.05, 0.08) * min(h, w)
        columns = int(random.integers(3, 6))
        middle = np.array([random.uniform(0.35, 0.65) * w, random.uniform(0.35, 0.65) * h])
        area = 0
        for i in range(random.integers(8, 15)):
            offset = np.array([i % columns - (columns - 1) / 2, i // columns - 1.0])
            x, y = middle + (offset * 1.9 + random.normal(0, 0.2, 2)) * radius
            inside, color, _ = self._draw(name, radius, x, y)
            area += int(inside.sum())
            self._paint(inside, color, radius)
        self.things.append(Thing(name, 0.0, area, crowd=True))

    def _draw(self, name: str, radius: float, x: float, y: float) -> tuple[Mask, Array, float]:
        """Return a solid's pixels `[h, w]`, their colors `[h, w, 3]`, and the fraction cut off."""
        window, colors = solid(self.random, name, radius, self.light)
        left, top = round(x) - window.shape[1] // 2, round(y) - window.shape[0] // 2
        inside = self._shifted(window, left, top, cv2.INTER_NEAREST).astype(bool)
        cut = float(1 - inside.sum() / window.sum())
        return inside, self._shifted(colors, left, top, cv2.INTER_NEAREST), cut

    def _shifted(self, window: NDArray[Any], x: float, y: float, flags: int) -> NDArray[Any]:
        """Return the window moved to x, y on an empty canvas."""
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        return np.asarray(cv2.warpAffine(window, shift, self.owner.shape[::-1], flags=flags))

    def _paint(self, inside: Mask, color: Array, radius: float) -> None:
        """Put a solid and its soft shadow on the canvas."""
        half = np.ceil(radius) + 2
        x, y = -0.22 * half * self.light[:2]
        shadow = self._shifted(inside.astype(np.float32), x, y, cv2.INTER_LINEAR)
        blur = 2 * int(half * 0.12) + 1
        soft = cv2.blur(cv2.blur(shadow, (blur, blur)), (blur, blur))
        self.canvas *= (1 - 0.45 * soft)[..., None]
        self.canvas[inside] = color[inside]
        self.owner[inside] = len(self.things) + 1
