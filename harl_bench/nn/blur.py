"""Gaussian blur of batches, and the high-pass filter that some networks were trained on."""

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

HIGH_PASS_PX, HIGH_PASS_SIGMA = 11, 5.0  # Chin et al., WACV 2024, their code e57d58e


def gaussian_blur(x: Tensor, kernel: int, sigma: Tensor | float) -> Tensor:
    """Gaussian blur with a sigma for each image, rows then columns, mirrored at the border as
    torchvision does.

    Args:
        x: [N, C, H, W] float.
        kernel: side in pixels, odd; at most 2 min(H, W) - 1.
        sigma: in pixels, [N] or one number.
    """
    N, C, _, _ = x.shape
    if not isinstance(sigma, Tensor):
        sigma = torch.full((), sigma, dtype=x.dtype, device=x.device)  # no copy to wait for
    sigma = sigma.to(x).expand(N)
    half = kernel // 2
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1, device=x.device) / sigma[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    taps = taps.repeat_interleave(C, dim=0)[:, None, None]  # [N C, 1, 1, kernel]
    flat = nnf.pad(x.reshape(1, N * C, *x.shape[2:]), (half, half, half, half), mode="reflect")
    rows = nnf.conv2d(flat, taps, groups=N * C)
    return nnf.conv2d(rows, taps.transpose(2, 3), groups=N * C).view(x.shape)


def high_pass(x: Tensor) -> Tensor:
    """Normalised images [N, 3, H, W] minus their blur."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        return x - gaussian_blur(x, HIGH_PASS_PX, HIGH_PASS_SIGMA)


def filter_inputs(model: nn.Module) -> None:
    """Let the network see its normalised inputs through `high_pass`, as in its pretraining."""

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (high_pass(inputs[0]), *inputs[1:])

    model.register_forward_pre_hook(before)
