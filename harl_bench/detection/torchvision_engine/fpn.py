"""Feature pyramid P2 to P6 over res2 ... res5, with Detectron2's names."""

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from harl_bench.detection.torchvision_engine.backbone import CHANNELS, ResNet50
from harl_bench.detection.torchvision_engine.convolution import NormedConv


class FPN(nn.Module):
    """Map images [N, 3, H, W] to {"p2": [N, C, H/4, W/4], ..., "p6": [N, C, H/64, W/64]}.

    H and W are multiples of 32. A 1x1 convolution per level, nearest upsampling by 2, a sum, then a
    3x3 convolution. P6 is every second cell of P5.
    """

    size_divisibility = 32
    names = ("p2", "p3", "p4", "p5", "p6")

    def __init__(self, bottom_up: ResNet50, channels: int, norm: str) -> None:
        super().__init__()
        for level, stage in enumerate(bottom_up.out, start=2):
            lateral = NormedConv(CHANNELS[stage], channels, 1, norm)
            output = NormedConv(channels, channels, 3, norm)
            for conv in (lateral, output):
                weight_init.c2_xavier_fill(conv)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
        self.bottom_up = bottom_up

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.bottom_up(x)
        pyramid: list[Tensor] = []
        above: Tensor | None = None
        for level, stage in reversed(list(enumerate(self.bottom_up.out, start=2))):
            lateral = self.get_submodule(f"fpn_lateral{level}")
            x = lateral(maps[stage])
            above = x if above is None else x + F.interpolate(above, scale_factor=2.0)
            pyramid.insert(0, self.get_submodule(f"fpn_output{level}")(above))
        pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return dict(zip(self.names, pyramid, strict=True))
