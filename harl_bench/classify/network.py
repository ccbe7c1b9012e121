"""The frozen ResNet whose features are measured."""

from typing import Literal

import torch
import torchvision
from torch import Tensor

from harl_bench.classify import stages
from harl_bench.convert.read import Backbone
from harl_bench.nn.blur import filter_inputs
from harl_bench.nn.resnet import FEATURES, build, load_backbone, pad_same

Precision = Literal["float32", "bfloat16"]


def width(arch: str, stage: int | None = None) -> int:
    """Return D, the number of values of an image."""
    return FEATURES[arch] if stage is None else stages.width(arch, stage)


def network(
    backbone: Backbone, device: torch.device, stage: int | None = None
) -> torchvision.models.ResNet:
    """Return the frozen ResNet in evaluation mode, with the checkpoint's batch-norm statistics.

    A network that was pretrained with a finer feature grid keeps its strides, because its last
    stage has never seen any other scale.
    """
    model = build(backbone.arch, feature_grid=backbone.feature_grid)
    load_backbone(model, backbone.tensors, name=backbone.arch)
    if backbone.stride_in_1x1:  # the original ResNet, as Detectron2's MSRA weights expect it
        for layer in (model.layer2, model.layer3, model.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    if backbone.padding == "same":
        pad_same(model)
    if backbone.input.high_pass:
        filter_inputs(model)
    if stage is not None:
        stages.end_at(model, stage)
    frozen: torch.nn.Module = (
        model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    )
    return frozen


def forward(model: torch.nn.Module, pixels: Tensor, precision: Precision) -> Tensor:
    """Return pooled features [B, D] float32 of normalised images [B, 3, S, S]."""
    with (
        torch.inference_mode(),
        torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        features: Tensor = model(pixels)
    return features.float()
