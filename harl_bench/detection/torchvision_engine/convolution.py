"""A convolution that owns its norm: parameters have Detectron2's names, as `conv1.norm.bias`."""

from typing import Any

from torch import Tensor, nn

from harl_bench.detection.torchvision_engine.norms import make_norm


class NormedConv(nn.Conv2d):
    """Convolution, then norm (if any), then ReLU (if asked for). With a norm it has no bias."""

    def __init__(
        self, inputs: int, outputs: int, size: int, norm: str = "", relu: bool = False, **conv: Any
    ) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2, bias=not norm, **conv)
        self.norm = make_norm(norm, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return x.relu_() if self.relu else x
