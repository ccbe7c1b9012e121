"""Load a pre-trained ResNet-50 into a detector: all 265 tensors, or an error."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harl_bench.convert.names import to_detectron2, to_torchvision
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import resnet


def load_backbone_into(model: nn.Module, tensors: Mapping[str, Any]) -> int:
    """Load a ResNet-50 into the detector's backbone; in C4, res5 goes to `roi_heads.res5`.

    Args:
        model: from `build_model`.
        tensors: torchvision's names (`layer1.0.bn1.weight`) or Detectron2's
            (`res2.0.conv1.norm.weight`), tensors or numpy arrays. `fc.*` and `num_batches_tracked`
            are ignored.

    Returns:
        265, the number of tensors loaded.

    Raises:
        CheckpointError: a tensor is missing, unexpected, not finite or of another shape. Nothing is
            loaded then.
    """
    source = {
        _torchvision(name): torch.as_tensor(value)
        for name, value in tensors.items()
        if not _is_ignored(name)
    }
    resnet.check(source)
    for name, value in source.items():
        if not value.isfinite().all():
            raise CheckpointError(
                "a backbone tensor is not finite", seen=name, next="take another checkpoint"
            )
    state = model.state_dict()  # shares memory with the model
    keys = {name: _key(to_detectron2(name), state) for name in source}
    with torch.no_grad():
        for name, value in source.items():
            state[keys[name]].copy_(value)
    return len(keys)


def _is_ignored(name: str) -> bool:
    return name.startswith(("fc.", "stem.fc.")) or name.endswith("num_batches_tracked")


def _torchvision(name: str) -> str:
    """Return torchvision's form of a name. An unknown one stays, and the check names it."""
    try:
        return to_torchvision(name)
    except KeyError:
        return name


def _key(name: str, state: Mapping[str, Tensor]) -> str:
    for prefix in ("backbone.", "backbone.bottom_up.", "roi_heads."):
        if prefix + name in state:
            return prefix + name
    raise CheckpointError(
        "the detector has no place for a backbone tensor",
        seen=name,
        next="check MODEL.RESNETS.NORM",
    )
