"""Matching, sampling, coding and regression loss of boxes [R, 4] xyxy, for RPN and heads."""

import torch
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou

from harl_bench.nn.runtime import retry_on_cpu


def match(matcher: Matcher, gt_boxes: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best ground truth of each box and its label, both [R] int64.

    Labels are 1 (object), 0 (background) and -1 (ignored). torchvision's matcher refuses an image
    without objects; here all of its boxes are background.
    """
    if len(gt_boxes) == 0 or len(boxes) == 0:
        zeros = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return zeros, zeros.clone()

    def matching(gt_boxes: Tensor, boxes: Tensor) -> Tensor:
        overlap = box_iou(gt_boxes, boxes).nan_to_num(nan=0.0)  # 0/0 where both are empty
        return matcher(overlap)  # type: ignore[no-any-return]

    # Hundreds of objects x 200,000 anchors can be too much for a GPU's memory.
    matches = retry_on_cpu(matching, gt_boxes, boxes).to(boxes.device)
    label = torch.where(matches >= 0, 1, torch.where(matches == Matcher.BELOW_LOW_THRESHOLD, 0, -1))
    return matches.clamp(min=0), label


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the indices [R'] int64 of the boxes kept by NMS within each group, best first."""
    return retry_on_cpu(batched_nms, boxes, scores, groups, threshold).to(boxes.device)


def sample(
    label: Tensor, size: int, positive_fraction: float, background: int
) -> tuple[Tensor, Tensor]:
    """Return random indices (positives, negatives) of at most `size` labels other than -1.

    Both permutations come from torch's global generator, positives first: this order is part of the
    parity with Detectron2 (modeling/sampling.py).
    """
    positive = ((label != -1) & (label != background)).nonzero().flatten()
    negative = (label == background).nonzero().flatten()
    n_positive = min(len(positive), int(size * positive_fraction))
    n_negative = min(len(negative), size - n_positive)
    first = torch.randperm(len(positive), device=label.device)[:n_positive]
    second = torch.randperm(len(negative), device=label.device)[:n_negative]
    return positive[first], negative[second]


def decode(coder: BoxCoder, deltas: Tensor, boxes: Tensor) -> Tensor:
    """Return boxes [R, 4 K] from deltas [R, 4 K] and boxes [R, 4], always in float32."""
    decoded: Tensor = coder.decode_single(deltas.float(), boxes.float())
    return decoded


def regression_loss(
    coder: BoxCoder, deltas: Tensor, boxes: Tensor, targets: Tensor, beta: float
) -> Tensor:
    """Return the sum of smooth L1 (`beta` 0: L1) of deltas [R, 4] against the encoded `targets`."""
    code = coder.encode_single(targets, boxes)
    loss: Tensor = smooth_l1_loss(deltas, code, beta=beta, reduction="sum")
    return loss


def nonempty(boxes: Tensor, minimum: float = 0.0) -> Tensor:
    """Return [R] bool: both sides are longer than `minimum` pixels."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return (width > minimum) & (height > minimum)
