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
    """`model(batch)`: a dict of losses while training, else one `Instances` per image at its
    original size.

    A batch is a list of {"image": uint8 [3, H, W] in INPUT.FORMAT order, "instances": ground truth
    (training), "height", "width": original size in pixels (testing; default: that of the image)}.
    """

    def __init__(self, recipe: Any) -> None:
        super().__init__()
        model = recipe.MODEL
        resnet = ResNet50(
            model.RESNETS.OUT_FEATURES,
            model.RESNETS.NORM,
            model.RESNETS.STRIDE_IN_1X1,
            model.BACKBONE.FREEZE_AT,
        )
        channels = model.FPN.OUT_CHANNELS if is_fpn(recipe) else CHANNELS["res4"]
        # Constructed in Detectron2's order, so that a seed gives the same initial weights.
        self.backbone = FPN(resnet, channels, model.FPN.NORM) if is_fpn(recipe) else resnet
        self.proposal_generator = RPN(model, channels)
        self.roi_heads = (StandardROIHeads if is_fpn(recipe) else Res5ROIHeads)(recipe)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer(
            "pixel_mean", torch.tensor(model.PIXEL_MEAN).view(-1, 1, 1), persistent=False
        )
        self.register_buffer(
            "pixel_std", torch.tensor(model.PIXEL_STD).view(-1, 1, 1), persistent=False
        )

    @property
    def counters(self) -> dict[str, float]:
        """Numbers of the last training step under Detectron2's names: fast_rcnn/*, roi_head/*,
        rpn/*, mask_rcnn/*.
        """
        return self.proposal_generator.counters | self.roi_heads.counters

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        images, sizes = self.preprocessed([item["image"] for item in batch])
        targets = [item["instances"].to(images.device) for item in batch] if self.training else None
        maps = self.backbone(images)
        proposals, losses = self.proposal_generator(maps, sizes, targets)
        if targets is not None:
            return self.roi_heads.train_step(maps, proposals, targets) | losses
        found = self.roi_heads.detect(maps, proposals, sizes)
        originals = [
            (item.get("height", h), item.get("width", w))
            for item, (h, w) in zip(batch, sizes, strict=True)
        ]
        return [postprocessed(f, original) for f, original in zip(found, originals, strict=True)]

    def preprocessed(self, images: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Normalised images in one tensor [N, 3, H, W], padded with zeros right and below, and
        their own sizes.

        H and W are the largest of the batch; for FPN rounded up to a multiple of 32.
        """
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        step = max(self.backbone.size_divisibility, 1)
        height, width = (-(-max(side) // step) * step for side in zip(*sizes, strict=True))
        padded = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for place, image, (h, w) in zip(padded, images, sizes, strict=True):
            place[:, :h, :w] = (image.to(padded.device) - self.pixel_mean) / self.pixel_std
        return padded, sizes


def postprocessed(found: Instances, size: tuple[int, int]) -> Instances:
    """Detections in an image of `size` (height, width): boxes scaled and clipped, empty ones
    dropped, masks pasted.
    """
    assert found.pred_boxes is not None, "the heads always return boxes"
    scale_y, scale_x = size[0] / found.image_size[0], size[1] / found.image_size[1]
    boxes = found.pred_boxes.clone()
    boxes[:, 0::2] *= scale_x
    boxes[:, 1::2] *= scale_y
    found.image_size, found.pred_boxes = size, clip_boxes_to_image(boxes, size)
    found = found[nonempty(found.pred_boxes)]
    if found.pred_masks is not None and found.pred_boxes is not None:
        found.pred_masks = retry_on_cpu(paste, found.pred_masks, found.pred_boxes, size)
    return found


def build_model(recipe: Any) -> RCNN:
    """The recipe's detector with new weights from torch's global generator, in training mode, on
    the CPU.
    """
    return RCNN(recipe)
