"""torchvision's ResNets as feature extractors, with a selectable feature grid and loading that
demands every tensor.

Letters: B batch, C channels (2048 for ResNet-50, 512 for ResNet-18), S side of the feature grid.
"""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as nnf
import torchvision
from torch import Tensor, nn

from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.core.lookup import lookup
from harl_bench.nn.norms import SplitBatchNorm

INSPECT = "harl-bench convert FILE --inspect"
FEATURES = {"resnet50": 2048, "resnet18": 512}
# spec harl.md section 5: by stride, no dilation
UNIT_STRIDE = {7: (), 14: ("layer4",), 28: ("layer3", "layer4")}


def build(
    name: str = "resnet50",
    *,
    feature_grid: int = 7,
    zero_init_residual: bool = False,
    bn_groups: int = 1,
) -> torchvision.models.ResNet:
    """A randomly initialised ResNet whose `fc` is the identity.

    Args:
        name: "resnet50" or "resnet18".
        feature_grid: S for a 224 px image. 14 gives conv5_x stride 1, 28 also conv4_x; weights fit
            every grid.
        zero_init_residual: the last batch norm of each block starts at 0, so that a block starts as
            the identity.
        bn_groups: groups of a batch with batch norm of their own; parameters and names stay.

    Raises:
        UsageError: unknown network or grid.
    """
    lookup(FEATURES, name, "network")
    if feature_grid not in UNIT_STRIDE:
        raise UsageError("feature_grid must be 7, 14 or 28", seen=feature_grid)
    model: torchvision.models.ResNet = getattr(torchvision.models, name)(
        weights=None,
        zero_init_residual=zero_init_residual,
        norm_layer=partial(SplitBatchNorm, groups=bn_groups) if bn_groups > 1 else None,
    )
    model.fc = nn.Identity()
    for layer in UNIT_STRIDE[feature_grid]:
        first = getattr(model, layer)[0]
        for conv in (first.conv1, first.conv2, first.downsample[0]):
            conv.stride = (1, 1)
    return model


def resnet50(*, feature_grid: int = 7) -> torchvision.models.ResNet:
    """`build("resnet50")`."""
    return build("resnet50", feature_grid=feature_grid)


def pad_same(model: torchvision.models.ResNet) -> None:
    """Let convolutions and pooling pad as TensorFlow's SAME does, in place.

    SAME makes the output ceil(input / stride) long and puts the odd pixel behind: a stride of 2 on
    224 px pads conv1 by 2 in front and 3 behind, where torchvision's pads by 3 on both sides
    (tf.nn.convolution's notes on padding).
    """

    def pad(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        kernel, stride = (_side(getattr(layer, name)) for name in ("kernel_size", "stride"))
        total = [
            max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in inputs[0].shape[:1:-1]
        ]
        sides = [part for n in total for part in (n // 2, n - n // 2)]  # left, right, top, bottom
        value = 0.0 if isinstance(layer, nn.Conv2d) else -torch.inf
        return (nnf.pad(inputs[0], sides, value=value),)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and _side(layer.kernel_size) > 1:
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(pad)


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def dense_features(model: torchvision.models.ResNet, x: Tensor) -> Tensor:
    """Images [B, 3, H, W] to the last feature map [B, C, S, S], before pooling."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features: Tensor = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    return features


def side(feature_grid: int, size: int) -> int:
    """Return S, the side of the last feature map, of images of `size` px."""
    return -(-size // (224 // feature_grid))  # padding rounds each stride of 2 up


@cache
def shapes(name: str = "resnet50") -> dict[str, tuple[int, ...]]:
    """Name and shape of every backbone tensor; ResNet-50: 53 convolutions + 53 batch norms x 4."""
    with torch.device("meta"):
        state = build(name).state_dict()
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def backbone_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of `shapes()`, detached, float32 copies on the CPU."""
    state = model.state_dict()
    return {
        key: value.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked") and not key.startswith("fc.")
    }


def load_backbone(
    model: torchvision.models.ResNet, tensors: Mapping[str, Tensor], *, name: str = "resnet50"
) -> None:
    """Put every backbone tensor into the model.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or of another shape; nothing is loaded
            then.
    """
    check(tensors, name=name)
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    left = [key for key in missing if not key.endswith("num_batches_tracked")]
    assert not [*left, *unexpected], f"names were checked, yet {left} and {unexpected} remain"


def check(tensors: Mapping[str, Tensor], *, name: str = "resnet50") -> None:
    """Demand exactly the tensors of `shapes(name)`.

    Raises:
        CheckpointError: names the first difference.
    """
    expected = shapes(name)
    matched = sum(
        key in tensors and tuple(tensors[key].shape) == shape for key, shape in expected.items()
    )
    if matched == len(expected) == len(tensors):
        return
    count = f"{matched} of {len(expected)} backbone tensors match"
    for key, shape in expected.items():
        if key not in tensors:
            raise CheckpointError(f"{count}; missing {key}", next=INSPECT)
        if tuple(tensors[key].shape) != shape:
            seen = f"{key} {tuple(tensors[key].shape)}, expected {shape}"
            raise CheckpointError(f"{count}; first mismatch", seen=seen, next=INSPECT)
    raise CheckpointError(f"{count}; unexpected {sorted(set(tensors) - set(expected))[0]}")
