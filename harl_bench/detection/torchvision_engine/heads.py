"""RoI heads of C4 (res5 as head) and FPN: proposal sampling, boxes, masks and their losses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import clip_boxes_to_image

from harl_bench.detection.torchvision_engine.backbone import CHANNELS, make_stage
from harl_bench.detection.torchvision_engine.box_head import Predictor, box_head, class_counters
from harl_bench.detection.torchvision_engine.boxes import (
    decode,
    match,
    nms,
    regression_loss,
    sample,
)
from harl_bench.detection.torchvision_engine.masks import mask_head, mask_loss, mask_targets
from harl_bench.detection.torchvision_engine.norms import make_norm
from harl_bench.detection.torchvision_engine.pooling import pool
from harl_bench.detection.torchvision_engine.proposals import STRIDES
from harl_bench.detection.torchvision_engine.structures import Instances, Mask


@dataclass
class Proposals:
    """Sampled proposals of a training batch, all images in a row.

    Attributes:
        boxes: [R_n, 4] per image.
        classes: [R] int64, background K.
        gt_boxes: [R, 4].
        gt_index: [R_n] int64 per image.
    """

    boxes: list[Tensor]
    classes: Tensor
    gt_boxes: Tensor
    gt_index: list[Tensor]


class ROIHeads(nn.Module, ABC):
    """Base of both heads: they provide `box_features` and, with masks, `mask_features`."""

    box_predictor: Predictor
    mask_head: nn.Sequential
    shares_features = False  # in training, the mask head takes the box head's own features

    def __init__(self, recipe: Any) -> None:
        super().__init__()
        model = recipe.MODEL
        self.settings = model.ROI_HEADS
        self.box, self.mask = model.ROI_BOX_HEAD, model.ROI_MASK_HEAD
        self.detections = recipe.TEST.DETECTIONS_PER_IMAGE
        self.mask_on = model.MASK_ON
        self.classes = model.ROI_HEADS.NUM_CLASSES
        self.strides = [STRIDES[name] for name in self.settings.IN_FEATURES]
        threshold = self.settings.IOU_THRESHOLDS[0]
        self.matcher = Matcher(threshold, threshold, allow_low_quality_matches=False)
        self.coder = BoxCoder(self.box.BBOX_REG_WEIGHTS)
        self.counters: dict[str, float] = {}

    @abstractmethod
    def box_features(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the input of the predictor [R, D] and the pooled features [R, C, M, M]."""

    @abstractmethod
    def mask_features(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Return the input of the mask head [R, C, M, M]."""

    def train_step(
        self, maps: dict[str, Tensor], proposals: list[Tensor], targets: list[Instances]
    ) -> dict[str, Tensor]:
        """Return loss_cls, loss_box_reg and, with masks, loss_mask."""
        levels = [maps[name] for name in self.settings.IN_FEATURES]
        sampled = self.sample_proposals(proposals, targets)
        vectors, pooled = self.box_features(levels, sampled.boxes)
        logits, deltas = self.box_predictor(vectors)
        losses = self.box_losses(logits, deltas, sampled)
        if self.mask_on:
            losses["loss_mask"] = self.mask_step(levels, pooled, sampled, targets)
        return losses

    @torch.no_grad()
    def sample_proposals(self, proposals: list[Tensor], targets: list[Instances]) -> Proposals:
        """Match proposals and ground-truth boxes to the objects and sample them, objects first."""
        boxes, classes, gt_boxes, gt_index = [], [], [], []
        for proposal, target in zip(proposals, targets, strict=True):
            assert target.gt_boxes is not None, "training needs ground truth"
            assert target.gt_classes is not None, "training needs ground truth"
            if self.settings.PROPOSAL_APPEND_GT:
                proposal = torch.cat([proposal, target.gt_boxes])
            matches, label = match(self.matcher, target.gt_boxes, proposal)
            kind = torch.full_like(label, self.classes)
            if len(target):
                kind = torch.where(label == 1, target.gt_classes[matches], kind)
            size, fraction = self.settings.BATCH_SIZE_PER_IMAGE, self.settings.POSITIVE_FRACTION
            keep = torch.cat(sample(kind, size, fraction, self.classes))
            boxes.append(proposal[keep])
            classes.append(kind[keep])
            gt_index.append(matches[keep])
            gt_boxes.append(target.gt_boxes[matches[keep]] if len(target) else proposal[keep])
        n_background = sum(int((kind == self.classes).sum()) for kind in classes)
        n = len(targets)
        self.counters = {
            "roi_head/num_fg_samples": (sum(map(len, classes)) - n_background) / n,
            "roi_head/num_bg_samples": n_background / n,
        }
        return Proposals(boxes, torch.cat(classes), torch.cat(gt_boxes), gt_index)

    def box_losses(self, logits: Tensor, deltas: Tensor, proposals: Proposals) -> dict[str, Tensor]:
        """Return the cross-entropy and the smooth L1 loss of the true class's deltas.

        The first is a mean over proposals; the second a sum over objects divided by all proposals.
        """
        kind, n = proposals.classes, len(proposals.classes)
        self.counters |= class_counters(logits, kind)
        objects = (kind < self.classes).nonzero().flatten()
        own = deltas.view(-1, self.classes, 4)[objects, kind[objects]]
        class_loss = F.cross_entropy(logits, kind) if n else logits.sum() * 0.0
        boxes, gt_boxes = torch.cat(proposals.boxes)[objects], proposals.gt_boxes[objects]
        box_loss = regression_loss(self.coder, own, boxes, gt_boxes, self.box.SMOOTH_L1_BETA)
        box_loss = box_loss / max(n, 1.0) * self.box.BBOX_REG_LOSS_WEIGHT
        return {"loss_cls": class_loss, "loss_box_reg": box_loss}

    def mask_step(
        self, levels: list[Tensor], pooled: Tensor, proposals: Proposals, targets: list[Instances]
    ) -> Tensor:
        """Return the mask loss over the proposals with an object.

        In C4 their res5 features are those of the box head.
        """
        kinds = torch.split(proposals.classes, [len(b) for b in proposals.boxes])
        objects = [(kind < self.classes).nonzero().flatten() for kind in kinds]
        boxes = [box[keep] for box, keep in zip(proposals.boxes, objects, strict=True)]
        is_object = proposals.classes < self.classes
        features = pooled[is_object] if self.shares_features else self.mask_features(levels, boxes)
        logits = self.mask_head(features)
        masks: list[Mask] = []
        index = []  # of every object among those of the whole batch
        for target, matches, keep in zip(targets, proposals.gt_index, objects, strict=True):
            index.append(matches[keep] + len(masks))
            masks += target.gt_masks or []
        mask_target = mask_targets(masks, torch.cat(index), torch.cat(boxes), logits.shape[-1])
        loss, counters = mask_loss(logits, proposals.classes[is_object], mask_target)
        self.counters |= counters
        return loss

    @torch.no_grad()
    def detect(
        self, maps: dict[str, Tensor], proposals: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Return the detections per image, best first, masks as probabilities within each box."""
        levels = [maps[name] for name in self.settings.IN_FEATURES]
        logits, deltas = self.box_predictor(self.box_features(levels, proposals)[0])
        counts = [len(p) for p in proposals]
        boxes = torch.split(decode(self.coder, deltas, torch.cat(proposals)), counts)
        scores = torch.split(logits.softmax(dim=-1), counts)
        detections = list(map(self.select_detections, boxes, scores, image_sizes))
        if self.mask_on:
            pred_boxes = [d.pred_boxes for d in detections if d.pred_boxes is not None]
            kinds = torch.cat([d.pred_classes for d in detections if d.pred_classes is not None])
            masks = self.mask_head(self.mask_features(levels, pred_boxes))
            masks = masks[torch.arange(len(kinds), device=kinds.device), kinds].sigmoid()
            per_image = torch.split(masks, [len(b) for b in pred_boxes])
            for instances, mask in zip(detections, per_image, strict=True):
                instances.pred_masks = mask
        return detections

    def select_detections(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Instances:
        """Return the best detections of one image: above SCORE_THRESH_TEST, after NMS per class.

        Args:
            boxes: [R, 4 K]. scores: probabilities [R, K + 1]. size: of the image, (height, width).
        """
        finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
        boxes, scores = boxes[finite], scores[finite, :-1]
        boxes = clip_boxes_to_image(boxes.reshape(-1, 4), size).view(-1, self.classes, 4)
        above = scores > self.settings.SCORE_THRESH_TEST
        kind = above.nonzero()[:, 1]
        boxes, scores = boxes[above], scores[above]
        keep = nms(boxes, scores, kind, self.settings.NMS_THRESH_TEST)[: self.detections]
        return Instances(size, pred_boxes=boxes[keep], scores=scores[keep], pred_classes=kind[keep])


class Res5ROIHeads(ROIHeads):
    """C4: proposals pooled from res4 run through res5; boxes from its mean, masks from its map.

    `Res5ROIHeadsExtraNorm` appends one more norm of kind RESNETS.NORM to res5 (MoCo's VOC and COCO
    C4 protocols).
    """

    shares_features = True

    def __init__(self, recipe: Any) -> None:
        super().__init__(recipe)
        resnet, outputs = recipe.MODEL.RESNETS, CHANNELS["res5"]
        self.res5 = make_stage("res5", resnet.NORM, resnet.STRIDE_IN_1X1)
        if self.settings.NAME == "Res5ROIHeadsExtraNorm":
            extra = make_norm(resnet.NORM, outputs)
            assert extra is not None, "the recipe reader admits no empty backbone norm"
            self.res5.add_module("norm", extra)
        self.box_predictor = Predictor(outputs, self.classes)
        if self.mask_on:
            self.mask_head = mask_head(
                outputs, self.classes, self.mask.NUM_CONV, self.mask.CONV_DIM, self.mask.NORM
            )

    def mask_features(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        pooled = pool(
            maps, self.strides, boxes, self.box.POOLER_RESOLUTION, self.box.POOLER_SAMPLING_RATIO
        )
        out: Tensor = self.res5(pooled)
        return out

    def box_features(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        pooled = self.mask_features(maps, boxes)
        return pooled.mean(dim=[2, 3]), pooled


class StandardROIHeads(ROIHeads):
    """FPN: box head of convolutions and linear layers, mask head of convolutions, each pooled."""

    def __init__(self, recipe: Any) -> None:
        super().__init__(recipe)
        channels, box, mask = recipe.MODEL.FPN.OUT_CHANNELS, self.box, self.mask
        self.box_head = box_head(channels, box)
        self.box_predictor = Predictor(box.FC_DIM, self.classes)
        if self.mask_on:
            self.mask_head = mask_head(
                channels, self.classes, mask.NUM_CONV, mask.CONV_DIM, mask.NORM
            )

    def mask_features(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        return pool(
            maps, self.strides, boxes, self.mask.POOLER_RESOLUTION, self.mask.POOLER_SAMPLING_RATIO
        )

    def box_features(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        pooled = pool(
            maps, self.strides, boxes, self.box.POOLER_RESOLUTION, self.box.POOLER_SAMPLING_RATIO
        )
        return self.box_head(pooled), pooled
