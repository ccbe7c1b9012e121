"""Region proposal network: anchors, objectness and deltas, two losses, proposals."""

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import clip_boxes_to_image

from harl_bench.core.errors import TrainingError
from harl_bench.detection.torchvision_engine.boxes import (
    decode,
    match,
    nms,
    nonempty,
    regression_loss,
    sample,
)
from harl_bench.detection.torchvision_engine.structures import Instances

STRIDES = {"res4": 16, "p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


class Head(nn.Module):
    """3x3 convolution and ReLU, then objectness and 4 deltas per anchor, shared by all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, anchors * 4, 1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, C, h, w] to logits [N, h w A] and deltas [N, h w A, 4]."""
        hidden = F.relu_(self.conv(x))
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).unflatten(1, (-1, 4))
        return logits, deltas.permute(0, 3, 4, 1, 2).flatten(1, -2)


class RPN(nn.Module):
    """RPN of a recipe's MODEL.RPN, MODEL.ANCHOR_GENERATOR and MODEL.PROPOSAL_GENERATOR."""

    def __init__(self, model: Any, channels: int) -> None:
        super().__init__()
        self.settings = model.RPN
        self.min_size = float(model.PROPOSAL_GENERATOR.MIN_SIZE)
        self.offset = model.ANCHOR_GENERATOR.OFFSET
        levels = len(model.RPN.IN_FEATURES)
        sizes, ratios = model.ANCHOR_GENERATOR.SIZES, model.ANCHOR_GENERATOR.ASPECT_RATIOS
        sizes = sizes * levels if len(sizes) == 1 else sizes
        ratios = ratios * levels if len(ratios) == 1 else ratios
        self.cells = [cell_anchors(s, r) for s, r in zip(sizes, ratios, strict=True)]
        low, high = model.RPN.IOU_THRESHOLDS
        self.matcher = Matcher(high, low, allow_low_quality_matches=True)
        self.coder = BoxCoder(model.RPN.BBOX_REG_WEIGHTS)
        self.rpn_head = Head(channels, len(self.cells[0]))
        self.counters: dict[str, float] = {}

    def forward(
        self,
        maps: dict[str, Tensor],
        image_sizes: list[tuple[int, int]],
        targets: list[Instances] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals per image, [R, 4], best first, and losses if there are targets."""
        levels = [maps[name] for name in self.settings.IN_FEATURES]
        anchors = [
            grid_anchors(cell.to(x.device), x.shape[-2:], STRIDES[name], self.offset)
            for cell, x, name in zip(self.cells, levels, self.settings.IN_FEATURES, strict=True)
        ]
        logits, deltas = zip(*map(self.rpn_head, levels), strict=True)
        losses = {} if targets is None else self.losses(torch.cat(anchors), logits, deltas, targets)
        with torch.no_grad():  # no gradient through the proposals' coordinates
            return self.proposals(anchors, logits, deltas, image_sizes), losses

    def losses(
        self,
        anchors: Tensor,
        logits: tuple[Tensor, ...],
        deltas: tuple[Tensor, ...],
        targets: list[Instances],
    ) -> dict[str, Tensor]:
        """Return both losses: sums over the anchors sampled, / (BATCH_SIZE_PER_IMAGE x images)."""
        settings = self.settings
        pairs = [self.sample_labels(anchors, target) for target in targets]
        label, boxes = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
        positive, sampled = label == 1, label >= 0
        n = len(targets)
        self.counters = {
            "rpn/num_pos_anchors": positive.sum().item() / n,
            "rpn/num_neg_anchors": (label == 0).sum().item() / n,
        }
        box_loss = regression_loss(
            self.coder,
            torch.cat(deltas, 1)[positive],
            anchors.expand(n, -1, -1)[positive],
            boxes[positive],
            settings.SMOOTH_L1_BETA,
        )
        class_loss = F.binary_cross_entropy_with_logits(
            torch.cat(logits, 1)[sampled], label[sampled].to(torch.float32), reduction="sum"
        )
        total, weight = settings.BATCH_SIZE_PER_IMAGE * n, settings.LOSS_WEIGHT
        return {
            "loss_rpn_cls": class_loss / total * weight,
            "loss_rpn_loc": box_loss / total * (settings.BBOX_REG_LOSS_WEIGHT * weight),
        }

    @torch.no_grad()
    def sample_labels(self, anchors: Tensor, target: Instances) -> tuple[Tensor, Tensor]:
        """Return the label [R] of every anchor and its ground-truth box [R, 4].

        Labels are 1 (object), 0 (background) and -1 (not sampled).
        """
        assert target.gt_boxes is not None, "training needs ground truth"
        matches, label = match(self.matcher, target.gt_boxes, anchors)
        if self.settings.BOUNDARY_THRESH >= 0:
            label[~_inside(anchors, target.image_size, self.settings.BOUNDARY_THRESH)] = -1
        positive, negative = sample(
            label, self.settings.BATCH_SIZE_PER_IMAGE, self.settings.POSITIVE_FRACTION, 0
        )
        label = torch.full_like(label, -1)
        label[positive], label[negative] = 1, 0
        boxes = target.gt_boxes[matches] if len(target.gt_boxes) else torch.zeros_like(anchors)
        return label, boxes

    def proposals(
        self,
        anchors: list[Tensor],
        logits: tuple[Tensor, ...],
        deltas: tuple[Tensor, ...],
        image_sizes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Return the best boxes of each level by logit, decoded, clipped and reduced by NMS.

        NMS works within each level. Logits rank, not probabilities: sigmoid saturates and would
        make ties.
        """
        settings = self.settings
        before = settings.PRE_NMS_TOPK_TRAIN if self.training else settings.PRE_NMS_TOPK_TEST
        after = settings.POST_NMS_TOPK_TRAIN if self.training else settings.POST_NMS_TOPK_TEST
        n = len(image_sizes)
        boxes, scores, level_ids = [], [], []
        for level, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
            best, index = logit.topk(min(before, logit.shape[1]), dim=1)
            delta = delta.gather(1, index[..., None].expand(-1, -1, 4)).flatten(0, 1)
            boxes.append(decode(self.coder, delta, anchor[index].flatten(0, 1)).view(n, -1, 4))
            scores.append(best)
            level_ids.append(torch.full_like(index[0], level))
        proposals = []
        rows = zip(torch.cat(boxes, 1), torch.cat(scores, 1), image_sizes, strict=True)
        for box, score, size in rows:
            ids = torch.cat(level_ids)
            finite = box.isfinite().all(dim=1) & score.isfinite()
            if self.training and not finite.all():
                advice = "check that the recipe's input format is the checkpoint's"
                raise TrainingError(
                    "training has diverged: proposals are not finite",
                    next=f"lower SOLVER.BASE_LR, or {advice}",
                )
            box = clip_boxes_to_image(box, size)
            keep = finite & nonempty(box, self.min_size)
            box, score, ids = box[keep], score[keep], ids[keep]
            proposals.append(box[nms(box, score, ids, settings.NMS_THRESH)[:after]])
        return proposals


def cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Return [A, 4] boxes around (0, 0), not rounded, all ratios (height / width) of each size."""
    widths = [(sqrt(size**2.0 / ratio), ratio) for size in sizes for ratio in ratios]
    return torch.tensor([[-w / 2, -r * w / 2, w / 2, r * w / 2] for w, r in widths])


def grid_anchors(cell: Tensor, grid: torch.Size, stride: int, offset: float) -> Tensor:
    """Return [h w A, 4]: the cell's anchors at every position of the level's h x w grid."""
    y, x = (
        torch.arange(offset * stride, n * stride, stride, dtype=torch.float32, device=cell.device)
        for n in grid
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)


def _inside(boxes: Tensor, size: tuple[int, int], margin: int) -> Tensor:
    height, width = size
    x0, y0, x1, y1 = boxes.unbind(1)
    return (x0 >= -margin) & (y0 >= -margin) & (x1 < width + margin) & (y1 < height + margin)
