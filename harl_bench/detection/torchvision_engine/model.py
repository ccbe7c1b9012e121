"""Faster and Mask R-CNN: images in, losses or detections out.

The state dict is Detectron2's GeneralizedRCNN's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from harl_bench.detection.recipe_rules import is_fpn
from harl_bench.detection.torchvision_engine.backbone import CHANNELS, ResNet50
from harl_bench.detection.torchvision_engine.boxes import nonempty
from harl_bench.detection.torchvision_engine.fpn import FPN
from harl_bench.detection.torchvision_engine.heads import Res5ROIHeads, StandardROIHeads
from harl_bench.detection.torchvision_engine.masks import paste
from harl_bench.detection.torchvision_engine.proposals import RPN
from harl_bench.detection.torchvision_engine.structures import Instances
from harl_bench.nn.runtime import retry_on_cpu


class RCNN(nn.Module):
    """Map a batch to a dict of losses while training, else to one `Instances` per image.

    A batch is a list of {"image": uint8 [3, H, W] in INPUT.FORMAT order, "instances": ground truth
    (training), "height", "width": original size in pixels (testing; default: that of the image)}.
    Detections are at the original size.
    """

    def __init__(self, recipe: Any) -> None:
        super().__init__()
        model = recipe.MODEL
        net, freeze_at = model.RESNETS, model.BACKBONE.FREEZE_AT
        resnet = ResNet50(net.OUT_FEATURES, net.NORM, net.STRIDE_IN_1X1, freeze_at)
        channels = model.FPN.OUT_CHANNELS if is_fpn(recipe) else CHANNELS["res4"]
        # Constructed in Detectron2's order, so that a seed gives the same initial weights.
        self.backbone = FPN(resnet, channels, model.FPN.NORM) if is_fpn(recipe) else resnet
        self.proposal_generator = RPN(model, channels)
        self.roi_heads = (StandardROIHeads if is_fpn(recipe) else Res5ROIHeads)(recipe)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        for name, values in (("pixel_mean", model.PIXEL_MEAN), ("pixel_std", model.PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def counters(self) -> dict[str, float]:
        """Return what Detectron2 logs of a training step as fast_rcnn/*, roi_head/*, rpn/* etc."""
        return self.proposal_generator.counters | self.roi_heads.counters

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        images, sizes = self.preprocess([item["image"] for item in batch])
        targets = [item["instances"].to(images.device) for item in batch] if self.training else None
        maps = self.backbone(images)
        proposals, losses = self.proposal_generator(maps, sizes, targets)
        if targets is not None:
            return self.roi_heads.train_step(maps, proposals, targets) | losses
        detections = self.roi_heads.detect(maps, proposals, sizes)
        return [
            postprocess(instances, (item.get("height", h), item.get("width", w)))
            for instances, item, (h, w) in zip(detections, batch, sizes, strict=True)
        ]

    def preprocess(self, images: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Return normalized images [N, 3, H, W], zero-padded right and below, and their sizes.

        H and W are the largest of the batch, for FPN rounded up to a multiple of 32.
        """
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        step = max(self.backbone.size_divisibility, 1)
        height, width = (-(-max(side) // step) * step for side in zip(*sizes, strict=True))
        padded = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for row, image, (h, w) in zip(padded, images, sizes, strict=True):
            row[:, :h, :w] = (image.to(padded.device) - self.pixel_mean) / self.pixel_std
        return padded, sizes


def postprocess(instances: Instances, size: tuple[int, int]) -> Instances:
    """Scale and clip detections to an image of `size` (height, width), and paste their masks."""
    assert instances.pred_boxes is not None, "the heads always return boxes"
    scale_y, scale_x = size[0] / instances.image_size[0], size[1] / instances.image_size[1]
    boxes = instances.pred_boxes.clone()
    boxes[:, 0::2] *= scale_x
    boxes[:, 1::2] *= scale_y
    instances.image_size, instances.pred_boxes = size, clip_boxes_to_image(boxes, size)
    instances = instances[nonempty(instances.pred_boxes)]
    if (masks := instances.pred_masks) is not None:
        instances.pred_masks = retry_on_cpu(paste, masks, instances.pred_boxes, size)
    return instances


def build_model(recipe: Any) -> RCNN:
    """Return the recipe's detector with new weights from torch's global generator, on the CPU."""
    return RCNN(recipe)
