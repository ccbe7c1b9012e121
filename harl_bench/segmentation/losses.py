"""The loss: cross-entropy of every labelled pixel, at the label's size.

B batch, K classes, H x W the label's size, h x w the logits'.
"""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from harl_bench.nn import distributed
from harl_bench.segmentation.confusion import IGNORED


def enlarged(logits: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Return logits [B, K, h, w] at another size, bilinear; unchanged if they have it."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, align_corners: bool, mean: Literal["labelled", "all"]
) -> Tensor:
    """Return the mean cross-entropy of logits [B, K, h, w] and labels [B, H, W] int64.

    Args:
        mean: "labelled": over the pixels that are not 255, of all processes together, so that
            their number changes nothing. "all": ignored pixels count 0 in the sum, but do count in
            the denominator (mmsegmentation's `avg_non_ignore=False`).
    """
    large = enlarged(
        logits.float(), (labels.shape[-2], labels.shape[-1]), align_corners=align_corners
    )
    losses = F.cross_entropy(large, labels, ignore_index=IGNORED, reduction="none")
    if mean == "all":
        return losses.mean()
    labelled = (labels != IGNORED).sum()
    if distributed.world_size() > 1:
        dist.all_reduce(labelled)
    # Averaged over processes, the gradients are those of the sum over all of them.
    return losses.sum() * distributed.world_size() / torch.clamp(labelled, min=1)
