"""Polygons within boxes: pycocotools, one region at a time as Detectron2 draws them, is the oracle."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco
from torch import Tensor
from torchvision.ops import roi_align

from harl_bench.detection.torchvision_engine.masks import mask_targets
from harl_bench.detection.torchvision_engine.polygons import draw

Outlines = list[NDArray[np.float64]]


def drawn(outlines: Outlines, box: NDArray[np.float32], size: int) -> NDArray[Any]:
    """Return [size, size] uint8, as D2:structures/masks.py:rasterize_polygons_within_box."""
    if not outlines:
        return np.zeros((size, size), np.uint8)
    scale = np.array([size / max(side, 0.1) for side in box[2:] - box[:2]])
    scaled = [((p.reshape(-1, 2) - box[:2]) * scale).ravel() for p in outlines]
    mask: NDArray[Any] = coco.decode(coco.merge(coco.frPyObjects(scaled, size, size)))
    return mask


def closed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([points[:1], points, points[:1]])


def upright(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.full(len(points), points[0, 0]), points[:, 1]], axis=1)


CHANGES = {
    "crossing itself": lambda points: points,
    "whole pixels": np.round,
    "closed, a point twice": closed,
    "a line": upright,
    "tiny": lambda points: points[:1] + 0.001 * (points - points[:1]),
}


def objects(rng: np.random.Generator, change: str) -> list[Outlines]:
    """Return ten objects of 0 to 3 outlines, some across the image's border."""
    counts, spreads = rng.integers(0, 4, 10), (3, 60)
    return [
        [
            CHANGES[change](
                rng.uniform(-50, 400, 2)
                + rng.normal(0, rng.choice(spreads), (rng.integers(3, 30), 2))
            ).ravel()
            for _ in range(count)
        ]
        for count in counts
    ]


def regions(rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Return the object and the box of n regions, from 0.0002 px to 300 px wide."""
    corners, sides = rng.uniform(0, 350, (n, 2)), rng.choice([0.001, 0.1, 3, 40, 300], (n, 1))
    boxes = np.concatenate([corners, corners + sides * rng.uniform(0.2, 1, (n, 2))], axis=1)
    return torch.from_numpy(rng.integers(0, 10, n)), torch.from_numpy(boxes.astype(np.float32))


@pytest.mark.parametrize("size", [14, 28])
@pytest.mark.parametrize("change", CHANGES)
def test_pixels_are_those_of_pycocotools(change: str, size: int) -> None:
    rng = np.random.default_rng(size)
    inside = 0
    for _ in range(4):
        polygons, (index, boxes) = objects(rng, change), regions(rng, 60)
        expected = [
            drawn(polygons[i], box, size)
            for i, box in zip(index.tolist(), boxes.numpy(), strict=True)
        ]
        assert np.array_equal(draw(polygons, index, boxes, size), expected)
        inside += int(np.sum(expected))
    assert inside > 0 or change in ("a line", "tiny")


@pytest.mark.parametrize("polygons", [[], [[]], [[np.array([1.0, 1, 5, 1, 5, 5])]]])
def test_no_regions_or_no_outlines_are_empty_masks(polygons: list[Outlines]) -> None:
    for n in (0, 3 if polygons == [[]] else 0):
        masks = draw(polygons, torch.zeros(n, dtype=torch.int64), torch.ones(n, 4), 28)
        assert masks.shape == (n, 28, 28)
        assert not masks.any()


def test_bitmaps_are_resampled_beside_polygons() -> None:
    """Regions of both kinds in any order, each as if it were alone."""
    rng = np.random.default_rng(0)
    polygons, (index, boxes) = objects(rng, "whole pixels"), regions(rng, 40)
    bitmaps = [torch.from_numpy(rng.random((90, 120)) < 0.5) for _ in range(5)]
    masks = [*polygons[:5], *bitmaps]
    boxes[index >= 5] /= 4  # within the bitmaps
    targets = mask_targets(masks, index, boxes, 28)
    for target, i, box in zip(targets, index.tolist(), boxes, strict=True):
        if i < 5:
            expected = torch.from_numpy(drawn(polygons[i], box.numpy(), 28)).bool()
        else:
            rois, image = F.pad(box[None], (1, 0)), bitmaps[i - 5].float()[None, None]
            expected = roi_align(image, rois, (28, 28), 1.0, 0, aligned=True)[0, 0] >= 0.5
        assert torch.equal(target, expected)
    assert targets[index < 5].any()
    assert targets[index >= 5].any()
