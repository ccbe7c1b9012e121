"""From a sample to the model's input: read, resized, flipped; boxes and outlines alike.

The same operations in the same order and precision as Detectron2's DatasetMapper with
ResizeShortestEdge and RandomFlip (D2:data/dataset_mapper.py, transforms/augmentation_impl.py,
detection_utils.py), so that pixels and targets are equal. Random numbers come from a generator that
is passed in and draw what Detectron2 draws, in its order.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.images import image_size, read_rgb
from harl_bench.detection.datasets.sample import Sample, Segment
from harl_bench.detection.torchvision_engine.structures import Instances, Mask

MIN_SIDE_PX = 1e-5  # D2:data/detection_utils.py:489-522, filter_empty_instances


def output_size(height: int, width: int, short_px: int, max_px: int) -> tuple[int, int]:
    """Return (height, width), the short side at `short_px` if the long one is at most `max_px`.

    Sizes are rounded half up.
    """
    size = short_px * 1.0
    scale = size / min(height, width)
    new_h, new_w = (size, scale * width) if height < width else (scale * height, size)
    if max(new_h, new_w) > max_px:
        scale = max_px * 1.0 / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return int(new_h + 0.5), int(new_w + 0.5)


def for_training(
    sample: Sample,
    generator: np.random.RandomState,
    *,
    sizes_px: Sequence[int],
    max_px: int,
    flip: bool,
    channels: str,
    masks: bool,
    bitmasks: bool = False,
) -> dict[str, Any]:
    """Return one training image and its objects without crowds, boxes clipped and not empty.

    Args:
        generator: draws the short side, then the flip, also where there is only one size.
        sizes_px: short sides to choose from.
        flip: flip left and right with probability one half.
        channels: "RGB" or "BGR".
        masks: transform the outlines, too.
        bitmasks: draw polygons as bitmasks of the resized image.

    Returns:
        {"image": uint8 [3, H, W], "instances", "height", "width" (original), "image_id",
        "file_name"}.

    Raises:
        DataError: the image is unreadable or not of the size its annotation says.
    """
    original = _read(sample)
    short = int(generator.choice(list(sizes_px)))
    flipped = flip and bool(generator.uniform(0, 1.0, []) < 0.5)
    height, width = output_size(sample.height, sample.width, short, max_px)
    keep = ~sample.crowd
    scale = np.array([width * 1.0 / sample.width, height * 1.0 / sample.height] * 2)
    boxes = sample.boxes[keep] * scale
    if flipped:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    boxes = np.minimum(boxes.clip(min=0), [width, height, width, height])
    gt_boxes = torch.from_numpy(boxes.astype(np.float32))
    sides = gt_boxes[:, 2:] - gt_boxes[:, :2]
    good = (sides > MIN_SIDE_PX).all(1)
    gt_masks: list[Mask] | None = None
    size = (height, width)
    if masks:
        outlines = [s for s, k in zip(sample.segments or [], keep, strict=True) if k]
        gt_masks = [_transform_outline(s, sample, size, flipped, bitmasks) for s in outlines]
        nonempty = [not isinstance(m, torch.Tensor) or bool(m.any()) for m in gt_masks]
        good &= torch.tensor(nonempty, dtype=torch.bool)
    instances = Instances(size, gt_boxes, torch.from_numpy(sample.classes[keep]), gt_masks)
    image = _pixels(original, size, flipped, channels)
    return _about(sample) | {"image": image, "instances": instances[good]}


def for_testing(sample: Sample, *, short_px: int, max_px: int, channels: str) -> dict[str, Any]:
    """Return one test image at its test size: the same dict without "instances"."""
    original = _read(sample)
    size = output_size(sample.height, sample.width, short_px, max_px)
    return _about(sample) | {"image": _pixels(original, size, False, channels)}


def _about(sample: Sample) -> dict[str, Any]:
    return {
        "height": sample.height,
        "width": sample.width,
        "image_id": sample.image_id,
        "file_name": sample.path,
    }


def require_readable(sample: Sample) -> None:
    """Raise DataError where `for_training` would: for engines with a mapper of their own."""
    _read(sample)


def require_size(sample: Sample) -> None:
    """Raise WrongSizeError by the image's header alone; a broken one is left to the training."""
    with suppress(UnreadableError):
        _compare(sample, image_size(sample.path, exif=True))


def _read(sample: Sample) -> Image.Image:
    original = read_rgb(sample.path, exif=True)
    _compare(sample, original.size)
    return original


def _compare(sample: Sample, size: tuple[int, int]) -> None:
    if size != (sample.width, sample.height):
        raise WrongSizeError(
            "image and annotation differ in size",
            where=sample.path,
            seen=f"image {size[0]} x {size[1]}, annotation {sample.width} x {sample.height}",
            next="fix the annotation",
        )


class WrongSizeError(DataError):
    """An image has another size than its annotation says. Such an image is never skipped."""


def _pixels(
    original: Image.Image, size: tuple[int, int], flipped: bool, channels: str
) -> torch.Tensor:
    pixels = np.asarray(original.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    pixels = pixels[:, ::-1] if flipped else pixels
    pixels = pixels[:, :, ::-1] if channels == "BGR" else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _transform_outline(
    outline: Segment, sample: Sample, size: tuple[int, int], flipped: bool, bitmasks: bool
) -> Mask:
    """Scale and flip polygons as points, a run-length code as pixels (nearest)."""
    height, width = size
    if isinstance(outline, dict):
        mask = Image.fromarray(np.ascontiguousarray(coco_mask.decode(outline)))
        pixels = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))
        return torch.from_numpy((pixels[:, ::-1] if flipped else pixels).copy()).bool()
    polygons = []
    for polygon in outline:
        points = polygon.reshape(-1, 2) * [width * 1.0 / sample.width, height * 1.0 / sample.height]
        if flipped:
            points[:, 0] = width - points[:, 0]
        polygons.append(points.reshape(-1))
    if bitmasks:
        code = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        return torch.from_numpy(coco_mask.decode(code)).bool()
    return polygons
