"""Where the object is, on a grid of cells, for `saliency_mask`: from masks or a frozen network."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor

from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import UsageError
from harl_bench.core.images import IMAGENET_MEAN, IMAGENET_STD
from harl_bench.core.manifest import sha256
from harl_bench.nn import resnet
from harl_bench.nn.blur import high_pass
from pretrain.colors import constant
from pretrain.losses import downsample_mask
from pretrain.saliency.masking import foreground_cells

# Views [B, 3, H, W] and masks [B, 1, H, W] to [B, S, S] bool.
Localiser = Callable[[Tensor, Tensor], Tensor]


def build(source: str, grid: int) -> Localiser:
    """The localiser of a configuration.

    code: a ResNet-50 trained with ImageNet's labels; here: "masks", or any checkpoint that
    `convert` reads; because labels would make the pretraining supervised in part.

    Raises:
        CheckpointError: not a ResNet-50.
    """
    return Masks(grid) if source == "masks" else Activations(source, grid)


def identity(source: str) -> dict[str, object]:
    """Return the digest of the checkpoint that locates objects, if any.

    Raises:
        UsageError: the localizer is no file.
    """
    if source == "masks":
        return {}
    if not Path(source).is_file():
        raise UsageError(
            "localiser is neither masks nor a checkpoint", where="localiser", seen=source
        )
    return {"localiser_sha256": sha256(source)}


class Masks:
    """The masks that come with the views; a cell is foreground when half its area is."""

    def __init__(self, grid: int) -> None:
        self.grid = grid

    def __call__(self, x: Tensor, masks: Tensor) -> Tensor:
        return downsample_mask(masks, (self.grid, self.grid))[:, 0] > 0


class Activations:
    """Channel sum of a frozen ResNet-50's last map (SCDA), cut at mean - 0.6 deviations."""

    def __init__(self, source: str, grid: int) -> None:
        found = read_backbone(source)
        self.network = resnet.resnet50(feature_grid=found.feature_grid)
        resnet.load_backbone(self.network, found.tensors)
        if found.stride_in_1x1:
            for layer in (self.network.layer2, self.network.layer3, self.network.layer4):
                layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        if found.padding == "same":
            resnet.pad_same(self.network)
        self.network.eval().requires_grad_(False)
        self.input, self.grid = found.input, grid

    @torch.no_grad()
    def __call__(self, x: Tensor, masks: Tensor) -> Tensor:
        mean, std, own_mean, own_std = (
            constant(tuple(values), x.device)
            for values in (self.input.pixel_mean, self.input.pixel_std, IMAGENET_MEAN, IMAGENET_STD)
        )
        levels = x.float() * own_std + own_mean
        if self.input.input_format == "BGR":
            levels = levels.flip(1)
        self.network.to(x.device)
        seen = (levels - mean) / std
        seen = high_pass(seen) if self.input.high_pass else seen
        h = resnet.dense_features(self.network, seen).float().sum(dim=1, keepdim=True)
        return foreground_cells(nnf.adaptive_avg_pool2d(h, self.grid)[:, 0])
