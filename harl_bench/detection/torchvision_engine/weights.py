"""A pre-trained ResNet-50 into a detector: all 265 tensors, or an error that names the
difference.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harl_bench.convert.names import to_detectron2, to_torchvision
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import resnet


def load_backbone_into(model: nn.Module, tensors: Mapping[str, Any]) -> int:
    """Place a ResNet-50 in the detector's backbone; in C4, res5 goes to `roi_heads.res5`.

    Args:
        model: from `build_model`.
        tensors: torchvision's names (`layer1.0.bn1.weight`) or Detectron2's
            (`res2.0.conv1.norm.weight`), tensors or numpy arrays. `fc.*` and `num_batches_tracked`
            are passed over.

    Returns:
        265, the number of tensors placed.

    Raises:
        CheckpointError: a tensor is missing, unexpected, not finite or of another shape; nothing is
            placed then.
    """
    source = {
        _torchvision(name): torch.as_tensor(value)
        for name, value in tensors.items()
        if not _passed_over(name)
    }
    resnet.check(source)
    for name, value in source.items():
        if not value.isfinite().all():
            raise CheckpointError(
                "a backbone tensor is not finite", seen=name, next="take another checkpoint"
            )
    state = model.state_dict()  # shares memory with the model
    places = {name: _place(to_detectron2(name), state) for name in source}
    with torch.no_grad():
        for name, value in source.items():
            state[places[name]].copy_(value)
    return len(places)


def _passed_over(name: str) -> bool:
    return name.startswith(("fc.", "stem.fc.")) or name.endswith("num_batches_tracked")


def _torchvision(name: str) -> str:
    """The name in torchvision's form; one that is neither stays as it is and is named by the
    check.
    """
    try:
        return to_torchvision(name)
    except KeyError:
        return name


def _place(name: str, state: Mapping[str, Tensor]) -> str:
    for prefix in ("backbone.", "backbone.bottom_up.", "roi_heads."):
        if prefix + name in state:
            return prefix + name
    raise CheckpointError(
        "the detector has no place for a backbone tensor",
        seen=name,
        next="check MODEL.RESNETS.NORM",
    )
