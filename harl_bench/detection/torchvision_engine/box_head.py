"""Boxes of proposals: the head's layers, the predictor, and how well it classifies."""

from typing import Any

from fvcore.nn import weight_init
from torch import Tensor, nn

from harl_bench.detection.torchvision_engine.convolution import NormedConv


class Predictor(nn.Module):
    """Map features [R, D] to class logits [R, K + 1], background last, and deltas [R, 4 K]."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, classes + 1)
        self.bbox_pred = nn.Linear(inputs, classes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


def box_head(channels: int, settings: Any) -> nn.Sequential:
    """Return the head from [R, C, size, size] to [R, FC_DIM]: 3x3 convolutions, then linear layers.

    Args:
        channels: C. settings: the recipe's MODEL.ROI_BOX_HEAD.
    """
    head = nn.Sequential()
    for k in range(1, settings.NUM_CONV + 1):
        conv = NormedConv(channels, settings.CONV_DIM, 3, settings.NORM, relu=True)
        head.add_module(f"conv{k}", conv)
        channels = settings.CONV_DIM
    head.add_module("flatten", nn.Flatten())
    width = channels * settings.POOLER_RESOLUTION**2
    for k in range(1, settings.NUM_FC + 1):
        head.add_module(f"fc{k}", nn.Linear(width, settings.FC_DIM))
        head.add_module(f"fc_relu{k}", nn.ReLU(inplace=True))
        width = settings.FC_DIM
    for layer in head:
        if isinstance(layer, nn.Conv2d):
            weight_init.c2_msra_fill(layer)
        elif isinstance(layer, nn.Linear):
            weight_init.c2_xavier_fill(layer)
    return head


def class_counters(logits: Tensor, kind: Tensor) -> dict[str, float]:
    """Return the accuracy over all proposals and over objects, and the rate of missed objects."""
    if len(kind) == 0:
        return {}
    background, predicted = logits.shape[1] - 1, logits.argmax(dim=1)
    objects = kind < background
    counters = {"fast_rcnn/cls_accuracy": (predicted == kind).sum().item() / len(kind)}
    if n := int(objects.sum()):
        counters["fast_rcnn/fg_cls_accuracy"] = (predicted == kind)[objects].sum().item() / n
        counters["fast_rcnn/false_negative"] = (predicted[objects] == background).sum().item() / n
    return counters
