"""Masks: the head, its targets and loss, and pasting predicted masks into an image."""

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn
from torchvision.ops import roi_align

from harl_bench.detection.torchvision_engine.convolution import NormedConv
from harl_bench.detection.torchvision_engine.polygons import draw
from harl_bench.detection.torchvision_engine.structures import Mask
from harl_bench.nn.runtime import retry_on_cpu, sent

PASTE_BYTES = 1 << 30  # on a GPU, masks are pasted in chunks of at most this many bytes
BYTES_PER_PIXEL = 4  # float32


def mask_head(
    inputs: int, classes: int, convolutions: int, channels: int, norm: str
) -> nn.Sequential:
    """Return the head from [R, C, M, M] to one logit map per class, [R, K, 2M, 2M]."""
    head = nn.Sequential()
    for k in range(1, convolutions + 1):
        head.add_module(f"mask_fcn{k}", NormedConv(inputs, channels, 3, norm, relu=True))
        inputs = channels
    deconv = nn.ConvTranspose2d(inputs, channels, 2, stride=2)
    head.add_module("deconv", deconv)
    head.add_module("deconv_relu", nn.ReLU(inplace=True))
    predictor = nn.Conv2d(channels, classes, 1)
    head.add_module("predictor", predictor)
    for layer in [*list(head)[:convolutions], deconv]:
        weight_init.c2_msra_fill(layer)
    nn.init.normal_(predictor.weight, std=0.001)
    nn.init.zeros_(predictor.bias)  # type: ignore[arg-type]
    return head


def mask_loss(logits: Tensor, classes: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the mean binary cross-entropy of the true class's map (0 if R is 0), and counters.

    Args:
        logits: [R, K, M, M]. classes: [R] int64. targets: [R, M, M] bool.
    """
    if len(logits) == 0:
        return logits.sum() * 0, {}
    own = logits[torch.arange(len(logits), device=logits.device), classes]
    wrong, n, n_true = (own > 0.0) != targets, targets.numel(), targets.sum().item()
    counters = {
        "mask_rcnn/accuracy": 1 - wrong.sum().item() / n,
        "mask_rcnn/false_positive": (wrong & ~targets).sum().item() / max(n - n_true, 1.0),
        "mask_rcnn/false_negative": (wrong & targets).sum().item() / max(n_true, 1.0),
    }
    return F.binary_cross_entropy_with_logits(own, targets.to(torch.float32)), counters


@torch.no_grad()
def mask_targets(masks: Sequence[Mask], index: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Return [R, size, size] bool on the boxes' device: of `masks[index[r]]` what is in `boxes[r]`.

    Polygons are moved and scaled to the box and drawn there, so no full-size mask is held. Bitmasks
    are resampled, one object at a time.
    """
    outlines = [[] if isinstance(mask, Tensor) else mask for mask in masks]
    out = retry_on_cpu(draw, outlines, index, boxes, size).to(boxes.device)
    if any(isinstance(mask, Tensor) for mask in masks):
        for i in sorted(set(index.tolist())):
            mask = masks[i]
            if isinstance(mask, Tensor):
                rows = (index == i).nonzero().flatten()
                image = sent(mask, boxes.device).float()[None, None]
                rois = F.pad(boxes[rows], (1, 0))  # column 0: number of the image
                out[rows] = roi_align(image, rois, (size, size), 1.0, 0, aligned=True)[:, 0] >= 0.5
    return out


def paste(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Return masks [R, H, W] bool of probabilities [R, M, M] inside boxes [R, 4].

    They are sampled bilinearly at pixel centers: on the CPU one mask at a time within its box, on a
    GPU many at once over the whole image.
    """
    height, width = size
    out = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    on_cpu = masks.device.type == "cpu"
    chunks = max(1, ceil(len(masks) * height * width * BYTES_PER_PIXEL / PASTE_BYTES))
    step = 1 if on_cpu else max(1, ceil(len(masks) / chunks))
    for start in range(0, len(masks), step):
        rows = slice(start, start + step)
        x0, y0, x1, y1 = 0, 0, width, height
        if on_cpu:
            x0, y0 = (boxes[start, :2].floor() - 1).clamp(min=0).int().tolist()
            x1 = min(int(boxes[start, 2].ceil()) + 1, width)
            y1 = min(int(boxes[start, 3].ceil()) + 1, height)
        left, top, right, bottom = boxes[rows].unsqueeze(2).unbind(1)
        x = torch.arange(x0, x1, dtype=torch.float32, device=boxes.device) + 0.5
        y = torch.arange(y0, y1, dtype=torch.float32, device=boxes.device) + 0.5
        # grid_sample's coordinates: -1 and 1 are the box's edges
        x = (x - left) / (right - left) * 2 - 1
        y = (y - top) / (bottom - top) * 2 - 1
        shape = (len(x), y.shape[1], x.shape[1])
        grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), dim=3)
        sampled = F.grid_sample(masks[rows, None].float(), grid, align_corners=False)
        out[rows, y0:y1, x0:x1] = sampled[:, 0] >= threshold
    return out
