"""RoIAlign over one or several feature levels."""

import torch
from torch import Tensor
from torchvision.ops import box_area, roi_align

CANONICAL_SIZE_PX, CANONICAL_LEVEL = 224, 4  # FPN paper (Lin et al. 2017), equation 1


def pool(
    maps: list[Tensor], strides: list[int], boxes: list[Tensor], size: int, sampling_ratio: int
) -> Tensor:
    """Return [R, C, size, size]: each box, scaled to its level, resampled half-pixel aligned.

    Args:
        maps: one [N, C, h, w] per level, finest first. boxes: [R_n, 4] per image, in pixels.
        sampling_ratio: points per bin and side; 0 lets roi_align take as many as the bin has cells.
    """
    image = torch.repeat_interleave(
        torch.arange(len(boxes), dtype=torch.float32, device=maps[0].device),
        torch.tensor([len(b) for b in boxes], device=maps[0].device),
    )
    rois = torch.cat([image[:, None], torch.cat(boxes)], dim=1)

    def align(x: Tensor, stride: int, rois: Tensor) -> Tensor:
        pooled: Tensor = roi_align(
            x, rois.to(x.dtype), (size, size), 1.0 / stride, sampling_ratio, aligned=True
        )
        return pooled

    if len(maps) == 1:
        return align(maps[0], strides[0], rois)
    level = levels(rois[:, 1:], strides)
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        index = (level == i).nonzero().flatten()
        pooled.index_put_((index,), align(x, stride, rois[index]))
    return pooled


def levels(boxes: Tensor, strides: list[int]) -> Tensor:
    """Return the level of each box, floor(4 + log2(sqrt(area) / 224 + 1e-8)) clamped, [R] int64."""
    finest, coarsest = (s.bit_length() - 1 for s in (strides[0], strides[-1]))
    scale = box_area(boxes).sqrt() / CANONICAL_SIZE_PX
    level = torch.floor(CANONICAL_LEVEL + torch.log2(scale + 1e-8))
    return level.clamp(finest, coarsest).to(torch.int64) - finest
