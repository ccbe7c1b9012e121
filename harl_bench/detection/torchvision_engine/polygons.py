"""Polygons drawn within boxes: all regions of a batch at once, on any device, with the pixels that
pycocotools draws.

pycocotools walks along an outline on a grid of five points a pixel and notes at which row the walk
crosses the middle of each column of pixels (rleFrPoly in its maskApi.c); a pixel is inside if the
crossings at or above it are odd in number. Here each edge's crossings are calculated, in the walk's
own float64 arithmetic, so that its rounding is kept.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harl_bench.nn.runtime import sent

GRID = 5  # points a pixel, along both axes
SHORTEST_PX = 0.1  # a box's side counts as at least so long (D2:structures/masks.py)


@torch.no_grad()
def draw(
    polygons: Sequence[Sequence[NDArray[np.float64]]], index: Tensor, boxes: Tensor, size: int
) -> Tensor:
    """Return [R, size, size] bool: the object `polygons[index[r]]` within `boxes[r]`.

    Args:
        polygons: the outlines of each object, each x0 y0 x1 y1 ... in pixels.
        index: [R] int64.
        boxes: [R, 4] float32, on the device that computes.
    """
    device = boxes.device
    outlines = [outline.reshape(-1, 2) for several in polygons for outline in several]
    n_outlines = sent(
        torch.tensor([len(several) for several in polygons], dtype=torch.int64), device
    )
    n_points = sent(torch.tensor([len(outline) for outline in outlines], dtype=torch.int64), device)
    points = sent(torch.from_numpy(np.concatenate([np.zeros((0, 2)), *outlines])), device)
    # A part is one outline of one region.
    region, k = _expanded(n_outlines[index])
    outline = _starts(n_outlines)[index[region]] + k
    part, k = _expanded(n_points[outline])
    point = _starts(n_points)[outline[part]] + k
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=SHORTEST_PX)
    scale = torch.full_like(sides, size) / sides  # in float32, as there
    row = region[part]
    start = (GRID * ((points[point] - boxes[row, :2]) * scale[row]) + 0.5).long()
    number = torch.arange(len(part), device=device)
    end = start[torch.where(k + 1 == n_points[outline[part]], number - k, number + 1)]

    low, high = torch.minimum(start, end)[:, 0], torch.maximum(start, end)[:, 0]
    middle = GRID // 2  # column c is crossed between the points GRID c + middle and the next one
    first = _rounded_up(low - middle).clamp(min=0)
    last = torch.div(high - middle - 1, GRID, rounding_mode="floor").clamp(max=size - 1)
    edge, k = _expanded((last - first + 1).clamp(min=0))
    column = first[edge] + k
    y = _crossing(start[edge], end[edge], GRID * column + middle)
    y = _rounded_up(y - middle).clamp(0, size)

    shape = (len(outline), size, size + 1)  # by part, column and row; the last row is below
    where = (part[edge] * size + column) * (size + 1) + y
    crossings = torch.bincount(where, minlength=prod(shape)).view(shape).to(torch.uint8)
    inside = (crossings.cumsum(2, dtype=torch.uint8)[..., :size] & 1).transpose(1, 2)
    # How many parts cover a pixel, up to each part: a region's are the difference over its own.
    covering = F.pad(inside.cumsum(0, dtype=torch.int16), (0, 0, 0, 0, 1, 0))
    n = n_outlines[index]
    before = _starts(n)
    return covering[before + n] != covering[before]


def _crossing(start: Tensor, end: Tensor, x: Tensor) -> Tensor:
    """Return the smaller y of the walk's two points beside x + 1/2, [C] int64.

    The walk goes along the longer axis towards larger values and rounds the other coordinate.

    Args:
        start, end: [C, 2] int64, an edge. x: [C] int64.
    """
    dx, dy = (end - start).abs().unbind(1)
    steep = dx < dy
    back = torch.where(steep, start[:, 1] > end[:, 1], start[:, 0] > end[:, 0])[:, None]
    start, end = torch.where(back, end, start), torch.where(back, start, end)
    (x0, y0), (x1, y1) = start.double().unbind(1), end.double().unbind(1)
    slope = torch.where(steep, x1 - x0, y1 - y0) / torch.where(steep, y1 - y0, x1 - x0)

    def rounded(origin: Tensor, t: Tensor) -> Tensor:
        return (origin + slope * t + 0.5).trunc()

    flat = torch.minimum(rounded(y0, x - x0), rounded(y0, x + 1 - x0))
    # The first step beyond: where an exact line would be, or one or two later by its rounding.
    t = ((x + 0.5 - x0) / slope).floor()
    for _ in range(2):
        t = t + ((rounded(x0, t) > x) != (slope > 0))
    return torch.where(steep, y0 + t - 1, flat).long()


def _expanded(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row of each item of rows with so many items, and its number within the row."""
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return row, torch.arange(len(row), device=counts.device) - _starts(counts)[row]


def _starts(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts


def _rounded_up(points: Tensor) -> Tensor:
    """Return the pixels that begin at these points of the grid, or the next ones."""
    return torch.div(points + GRID - 1, GRID, rounding_mode="floor")
