"""Composed images: solids on a textured ground, with shadows, occlusion, truncation and exact
visible pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from harl_bench.toydata.shape import NAMES, Solid, solid
from harl_bench.toydata.texture import Array, Random, background

FINE = 3  # everything is drawn this much finer and averaged down: smooth edges
LEAST_VISIBLE = (
    0.4  # a later thing that would leave less of an earlier one than this is placed elsewhere
)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """One labelled object (or, with `crowd`, one group): visible pixels `[H, W] bool`, shares of
    its area in 0..1.
    """

    name: str
    visible: Mask
    cut: float  # share outside the image
    hidden: float  # share of the rest that other things cover
    crowd: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 around the visible pixels; x2 and y2 exclusive."""
        rows, columns = np.flatnonzero(self.visible.any(1)), np.flatnonzero(self.visible.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Scene:
    """An image `[H, W, 3] uint8 RGB` and its things, from back to front."""

    image: NDArray[np.uint8]
    things: list[Thing]


def size_px(random: Random, side_px: int) -> tuple[int, int]:
    """Height and width as cameras and crops give them: any number, either orientation, up to
    3:2.
    """
    short = int(random.integers(round(0.73 * side_px), side_px + 1))
    long = round(short * random.uniform(1.0, 1.5))
    return (short, long) if random.random() < 0.6 else (long, short)


def compose(
    random: Random,
    names: Sequence[str],
    *,
    size: tuple[int, int],
    radii: tuple[float, float] = (0.1, 0.4),
    tiny: float = 0.0,
    group: bool = False,
) -> Scene:
    """Draw an image of the given height and width with one thing per name.

    Args:
        names: the shapes, back to front.
        radii: range of a thing's radius as a share of the shorter side (log-uniform).
        tiny: probability that a thing is far smaller than that.
        group: begin with a crowd: many small solids of one shape under one label.
    """
    stage = _Stage(random, size)
    if group:
        stage.add_group(NAMES[int(random.integers(len(NAMES)))])
    for name in names:
        stage.add(name, radii if random.random() >= tiny else (0.035, 0.055))
    return stage.scene()


class _Stage:
    """The fine canvas while things are put on it; `owner` tells which thing a fine pixel shows (0:
    the ground).
    """

    def __init__(self, random: Random, size: tuple[int, int]) -> None:
        self.random, self.size = random, size
        h, w = size[0] * FINE, size[1] * FINE
        self.canvas: Array = background(random, h, w)
        self.owner = np.zeros((h, w), np.int16)
        self.full: list[
            tuple[str, float, float, bool]
        ] = []  # name, share cut, fine pixels in the image, crowd
        direction = random.uniform(0, 2 * np.pi)
        self.light = np.array([0.62 * np.cos(direction), 0.62 * np.sin(direction), 0.78])

    def add(self, name: str, radii: tuple[float, float]) -> None:
        """Place a thing at random, again if it hides an earlier one too much, lies too far outside,
        or blends in.
        """
        random, (h, w) = self.random, self.owner.shape
        for _ in range(30):
            radius = float(np.exp(random.uniform(*np.log(radii)))) * min(h, w)
            centre = (float(random.uniform(0, w)), float(random.uniform(0, h)))
            drawn = solid(random, name, centre=centre, radius_px=radius, light=self.light)
            there = self._placed(drawn)
            cut = 1 - there.sum() / max(drawn.inside.sum(), 1)
            if cut < 0.45 and self._leaves_others_visible(there) and self._stands_out(drawn, there):
                self.full.append((name, float(cut), float(there.sum()), False))
                self._paint(drawn, there)
                return

    def add_group(self, name: str) -> None:
        """Eight to fourteen small solids side by side, under one label."""
        random, (h, w) = self.random, self.owner.shape
        radius = random.uniform(0.05, 0.08) * min(h, w)
        columns = int(random.integers(3, 6))
        middle = np.array([random.uniform(0.35, 0.65) * w, random.uniform(0.35, 0.65) * h])
        self.full.append((name, 0.0, 0.0, True))
        area = 0.0
        for i in range(int(random.integers(8, 15))):
            place = np.array([i % columns - (columns - 1) / 2, i // columns - 1.0])
            x, y = middle + (place * 1.9 + random.normal(0, 0.2, 2)) * radius
            drawn = solid(
                random, name, centre=(float(x), float(y)), radius_px=radius, light=self.light
            )
            there = self._placed(drawn)
            area += float(there.sum())
            self._paint(drawn, there)
        self.full[-1] = (name, 0.0, area, True)

    def scene(self) -> Scene:
        """Average down; a pixel belongs to the thing that covers more than half of it."""
        height, width = self.size
        small = cv2.resize(
            np.clip(self.canvas, 0, 1), (width, height), interpolation=cv2.INTER_AREA
        )
        grain = self.random.normal(0, self.random.uniform(0.004, 0.03), small.shape)
        image = np.clip((small + grain) * 255, 0, 255).round().astype(np.uint8)
        things = []
        for label, (name, cut, area, crowd) in enumerate(self.full, 1):
            mine = self.owner == label
            covered = mine.reshape(height, FINE, width, FINE).sum((1, 3), dtype=np.int32)
            visible = covered * 2 > FINE * FINE
            if visible.any():
                things.append(
                    Thing(name, visible, cut, max(0.0, 1 - float(mine.sum()) / area), crowd)
                )
        return Scene(image, things)

    def _placed(self, drawn: Solid) -> Mask:
        """Its pixels on the whole canvas."""
        there = np.zeros(self.owner.shape, bool)
        on_canvas, on_window = _overlap(self.owner.shape, drawn)
        there[on_canvas] = drawn.inside[on_window]
        return there

    def _leaves_others_visible(self, there: Mask) -> bool:
        left = np.bincount(self.owner[~there], minlength=len(self.full) + 1)[1:]
        return all(
            n >= LEAST_VISIBLE * area for n, (_, _, area, _) in zip(left, self.full, strict=True)
        )

    def _stands_out(self, drawn: Solid, there: Mask) -> bool:
        on_canvas, on_window = _overlap(self.owner.shape, drawn)
        inside = drawn.inside[on_window]
        difference = np.abs(drawn.color[on_window][inside] - self.canvas[on_canvas][inside]).sum(-1)
        return bool(difference.mean() > 0.35)

    def _paint(self, drawn: Solid, there: Mask) -> None:
        radius = drawn.inside.shape[0] / 2
        shift = np.array(
            [[1, 0, -0.22 * radius * self.light[0]], [0, 1, -0.22 * radius * self.light[1]]],
            np.float32,
        )
        cast = cv2.warpAffine(there.astype(np.float32), shift, there.shape[::-1])
        soft = cv2.blur(cv2.blur(cast, (k := 2 * int(radius * 0.12) + 1, k)), (k, k))
        self.canvas *= (1 - 0.45 * soft)[..., None]
        on_canvas, on_window = _overlap(self.owner.shape, drawn)
        self.canvas[on_canvas][drawn.inside[on_window]] = drawn.color[on_window][
            drawn.inside[on_window]
        ]
        self.owner[there] = len(self.full)


def _overlap(
    shape: tuple[int, ...], drawn: Solid
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a window lies on the canvas, and which part of the window that is."""
    x, y = drawn.corner
    size = drawn.inside.shape[0]
    top, bottom = min(max(y, 0), shape[0]), max(min(y + size, shape[0]), 0)
    left, right = min(max(x, 0), shape[1]), max(min(x + size, shape[1]), 0)
    return (slice(top, bottom), slice(left, right)), (
        slice(top - y, bottom - y),
        slice(left - x, right - x),
    )
