"""Predictions for one image: whole, by sliding windows, or in its central crop.

K classes, H x W the network's input, K > 1.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from harl_bench.segmentation.confusion import IGNORED, Labels
from harl_bench.segmentation.losses import enlarged
from harl_bench.segmentation.recipe import Test

Network = Callable[[Tensor], tuple[Tensor, ...]]


def predict(
    model: Network, x: Tensor, size: tuple[int, int], settings: Test, *, align_corners: bool
) -> Labels:
    """Return the class of each pixel, uint8 [height, width]; 255 where the crop does not reach.

    Args:
        x: [1, 3, H, W], normalized, resized as `settings.scale_px` says.
        size: (height, width) of the original image.
    """
    logits = MODES[settings.mode](model, x, settings, align_corners)
    large = enlarged(logits, size, align_corners=align_corners)
    labels: Labels = large[0].argmax(0).byte().cpu().numpy()
    if settings.mode == "center":
        assert settings.crop_px is not None, "the recipe states it"
        top, left = ((n - settings.crop_px) // 2 for n in size)
        for start, length, rows in ((top, size[0], labels), (left, size[1], labels.T)):
            rows[: max(0, start)] = IGNORED
            rows[min(length, start + settings.crop_px) :] = IGNORED
    return labels


def whole(model: Network, x: Tensor, settings: Test, align_corners: bool) -> Tensor:
    """Return logits [1, K, H, W] of the image in one pass."""
    height, width = x.shape[-2:]
    return enlarged(model(x)[0].float(), (height, width), align_corners=align_corners)


def slide(model: Network, x: Tensor, settings: Test, align_corners: bool) -> Tensor:
    """Return logits [1, K, H, W], averaged where windows overlap.

    The last window of a row or column is moved back into the image (mmsegmentation 1.2.2,
    encoder_decoder.py, `slide_inference`).
    """
    assert settings.crop_px is not None, "the recipe states it"
    assert settings.stride_px is not None, "the recipe states it"
    height, width = x.shape[-2:]
    total: Tensor | None = None
    passes = x.new_zeros(1, 1, height, width)
    for y in _starts(height, settings.crop_px, settings.stride_px):
        for left in _starts(width, settings.crop_px, settings.stride_px):
            window = x[:, :, y : y + settings.crop_px, left : left + settings.crop_px]
            logits = whole(model, window, settings, align_corners)
            if total is None:
                total = logits.new_zeros(1, logits.shape[1], height, width)
            rows, columns = logits.shape[-2:]
            total[:, :, y : y + rows, left : left + columns] += logits
            passes[:, :, y : y + rows, left : left + columns] += 1
    assert total is not None, "there is at least one window"
    return total / passes


def _starts(length: int, crop: int, stride: int) -> list[int]:
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(k * stride + crop, length) - crop, 0) for k in range(count)]


def center(model: Network, x: Tensor, settings: Test, align_corners: bool) -> Tensor:
    """Return logits [1, K, H, W] of the central square, 0 around it.

    paper (BYOL D.4): the central 513 x 513 crop; here: a smaller image, which all of VOC's are, is
    padded with the mean pixel on all sides, because a central crop that is larger leaves no other.
    """
    assert settings.crop_px is not None, "the recipe states it"
    height, width = x.shape[-2:]
    top, left = ((n - settings.crop_px) // 2 for n in (height, width))
    bottom, right = height - settings.crop_px - top, width - settings.crop_px - left
    square = F.pad(x, (-left, -right, -top, -bottom))  # negative numbers crop
    logits = whole(model, square, settings, align_corners)
    return F.pad(logits, (left, right, top, bottom))


MODES: dict[str, Callable[[Network, Tensor, Test, bool], Tensor]] = {
    "whole": whole,
    "slide": slide,
    "center": center,
}
