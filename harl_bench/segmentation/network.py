"""A dilated ResNet-50 with fully convolutional heads. Names of tensors are mmsegmentation's.

B batch, C channels, K classes, h x w the size of a feature map: 1/8 or 1/16 of the image's.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from harl_bench.convert.read import Backbone
from harl_bench.nn import resnet
from harl_bench.segmentation.recipe import Head, Network, Recipe

LAYER3, LAYER4 = 1024, 2048  # channels


class ConvNorm(nn.Module):
    """3x3 convolution without bias, batch norm and ReLU; h x w stays."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        # paper (MoCo): not stated; here: He's, because mmcv's ConvModule and torchvision use it.
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class FCNHead(nn.Module):
    """Features [B, C, h, w] to logits [B, K, h, w], as mmsegmentation 1.2.2's FCNHead."""

    def __init__(self, inputs: int, classes: int, settings: Head) -> None:
        super().__init__()
        width, dilation = settings.channels, settings.dilation
        widths = [inputs, *[width] * settings.convs]
        layers = (ConvNorm(a, b, dilation) for a, b in pairwise(widths))
        self.convs = nn.Sequential(*layers)
        self.conv_cat = ConvNorm(inputs + width, width) if settings.concat_input else None
        self.dropout = nn.Dropout2d(settings.dropout)
        self.conv_seg = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None, "the last convolution has a bias"
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        if self.conv_cat is not None:
            out = self.conv_cat(torch.cat([x, out], dim=1))
        logits: Tensor = self.conv_seg(self.dropout(out))
        return logits


class Segmenter(nn.Module):
    """Normalized images [B, 3, H, W] to the logits of each head, [B, K, h, w].

    In training mode a network with an auxiliary head returns (logits, auxiliary logits), otherwise
    (logits,).
    """

    def __init__(self, recipe: Recipe, classes: int, *, stride_in_1x1: bool = False) -> None:
        super().__init__()
        self.backbone = resnet.build()
        dilate(self.backbone, recipe.network, stride_in_1x1=stride_in_1x1)
        self.decode_head = FCNHead(LAYER4, classes, recipe.head)
        self.auxiliary_head = None
        if recipe.auxiliary is not None:
            self.auxiliary_head = FCNHead(LAYER3, classes, recipe.auxiliary)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        third = net.layer3(net.layer2(net.layer1(x)))
        logits = self.decode_head(net.layer4(third))
        if self.auxiliary_head is None or not self.training:
            return (logits,)
        return logits, self.auxiliary_head(third)


def build(recipe: Recipe, classes: int, backbone: Backbone | None = None) -> Segmenter:
    """Return the network of a recipe, its heads drawn from torch's global generator.

    Args:
        backbone: whose 265 tensors, if it has them, the ResNet starts from; else it is random.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """
    stride_in_1x1 = backbone is not None and backbone.stride_in_1x1
    model = Segmenter(recipe, classes, stride_in_1x1=stride_in_1x1)
    if backbone is not None and backbone.tensors:
        resnet.load_backbone(model.backbone, backbone.tensors)
    return model


def dilate(
    model: torchvision.models.ResNet, settings: Network, *, stride_in_1x1: bool = False
) -> None:
    """Give the stages of a ResNet-50 their strides and dilations, in place.

    torchvision's `replace_stride_with_dilation=[False, False, True]` gives the first block of
    layer4 dilation 1. MoCo's appendix A.5 dilates all three: that is `contract_dilation` False.

    Args:
        stride_in_1x1: of MSRA's networks: the stride is the first 1x1 convolution's.
    """
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    for stage, stride, dilation in zip(stages, settings.strides, settings.dilations, strict=True):
        for k, block in enumerate(stage):
            halved = settings.contract_dilation and k == 0 and dilation > 1
            side = dilation // 2 if halved else dilation
            block.conv2.dilation = block.conv2.padding = (side, side)
        strided, plain = stage[0].conv2, stage[0].conv1
        if stride_in_1x1:
            strided, plain = plain, strided
        strided.stride = stage[0].downsample[0].stride = (stride, stride)
        plain.stride = (1, 1)
