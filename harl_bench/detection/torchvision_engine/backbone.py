"""ResNet-50 with Detectron2's names: stem, res2 ... res5."""

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.detection.torchvision_engine.convolution import NormedConv
from harl_bench.detection.torchvision_engine.norms import FrozenBatchNorm2d

BLOCKS = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
CHANNELS = {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}


class Stem(nn.Module):
    """7x7 convolution with stride 2, norm, ReLU, 3x3 max pool with stride 2."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.conv1 = NormedConv(3, 64, 7, norm, stride=2)
        weight_init.c2_msra_fill(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut.

    The stride sits in the 3x3, or in the first 1x1 as in MSRA's models.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: str, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        narrow = outputs // 4
        first, middle = (stride, 1) if stride_in_1x1 else (1, stride)
        # Layers are created and filled in Detectron2's order: one seed gives both the same weights.
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = NormedConv(inputs, outputs, 1, norm, stride=stride)
        self.conv1 = NormedConv(inputs, narrow, 1, norm, stride=first)
        self.conv2 = NormedConv(narrow, narrow, 3, norm, stride=middle)
        self.conv3 = NormedConv(narrow, outputs, 1, norm)
        for conv in (self.conv1, self.conv2, self.conv3, self.shortcut):
            if conv is not None:
                weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


def make_stage(name: str, norm: str, stride_in_1x1: bool) -> nn.Sequential:
    """Return one of `res2` ... `res5`; all but res2 halve the resolution in their first block."""
    outputs = CHANNELS[name]
    inputs, stride = (64, 1) if name == "res2" else (outputs // 2, 2)
    stage = nn.Sequential(Bottleneck(inputs, outputs, stride, norm, stride_in_1x1))
    for _ in range(BLOCKS[name] - 1):
        stage.append(Bottleneck(outputs, outputs, 1, norm, stride_in_1x1))
    return stage


class ResNet50(nn.Module):
    """Map normalized images [N, 3, H, W] to the feature maps `out`, [N, C, H/stride, W/stride].

    Args:
        out: `["res4"]` for C4 or `["res2", ..., "res5"]` for FPN. Later stages are dropped.
        freeze_at: 1 freezes the stem, 2 res2 as well, and so on: no gradients, FrozenBN for norms.
    """

    size_divisibility = 0

    def __init__(
        self, out: tuple[str, ...], norm: str, stride_in_1x1: bool, freeze_at: int
    ) -> None:
        super().__init__()
        self.out = out
        self.stem = Stem(norm)
        # All four are created, as in Detectron2: they draw the same random numbers.
        stages = {name: make_stage(name, norm, stride_in_1x1) for name in BLOCKS}
        self.stages = tuple(BLOCKS)[: max(tuple(BLOCKS).index(name) for name in out) + 1]
        for name in self.stages:
            self.add_module(name, stages[name])
        for name in ("stem", *self.stages)[:freeze_at]:
            freeze(self.get_submodule(name))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        maps = {}
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps[name] = x
        return {name: maps[name] for name in self.out}


def freeze(module: nn.Module) -> None:
    """Stop gradients of all parameters and turn trainable norms into FrozenBN, in place."""
    for parameter in module.parameters():
        parameter.requires_grad = False
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, FrozenBatchNorm2d.like(child))
