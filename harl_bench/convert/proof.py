"""The proof of a conversion: the written names, values and features equal those of the source.

The names go through the map of convert/names.py and back, the values are compared bit for bit, and
one random image goes through torchvision's ResNet-50 with the source's tensors and with the written
file's. Where Detectron2 is installed, it also goes through its ResNet-50, which reads Detectron2's
names itself.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harl_bench.convert.names import to_detectron2, to_torchvision
from harl_bench.convert.networks import candidates
from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import log
from harl_bench.nn import checkpoint, resnet
from harl_bench.nn.lazytensor import LazyTensor

PX = 64  # enough for every stage to see more than one cell
STAGES = ("res2", "res3", "res4", "res5")
Tensors = Mapping[str, Tensor]


def of(tensors: Tensors) -> list[str]:
    """Prove the map on these tensors (torchvision's names).

    Returns:
        Three lines that say what was compared.

    Raises:
        CheckpointError: a difference.
    """
    resnet.check(tensors)
    mapped = {to_detectron2(name): value for name, value in tensors.items()}
    back = {to_torchvision(name) for name in mapped}
    if len(mapped) != len(tensors) or back != tensors.keys():
        seen = f"{len(mapped)} of {len(tensors)}"
        raise CheckpointError("the map of names is not one to one", seen=seen)
    variances = [value for name, value in tensors.items() if name.endswith("running_var")]
    finite = all(value.isfinite().all() for value in tensors.values())
    if not finite or not all((value >= 0).all() for value in variances):
        raise CheckpointError("a tensor is not finite, or a batch-norm variance is negative")
    stages = torchvision_stages(tensors)
    networks = "torchvision's ResNet-50"
    if detectron2_installed():
        _compare(stages, detectron2_stages(mapped), "Detectron2's ResNet-50")
        networks += " and Detectron2's"
    return [
        f"names: {len(mapped)} of {len(tensors)} map one to one and back, with their shapes",
        f"values: {len(tensors)} tensors bit for bit as in the source, finite; {len(variances)} "
        "variances not negative",
        f"features: {', '.join(STAGES)} of one random image are equal in {networks}, "
        "source against converted: largest difference 0.0",
    ]


def same(tensors: Tensors, written: Path, out: Path) -> None:
    """Read the written file back and compare every tensor and the features with the source.

    Args:
        out: what to call the file in an error.

    Raises:
        CheckpointError: a difference.
    """
    network = next(iter(candidates(checkpoint.peek(written).payload)), None)
    if not network or network.matched != len(tensors) or network.tensors.keys() != tensors.keys():
        what = "the converted file has other tensors than its source"
        seen = f"{network.matched if network else 0} of {len(tensors)}"
        raise CheckpointError(what, where=out, seen=seen)
    read = {
        name: v.load() if isinstance(v, LazyTensor) else v for name, v in network.tensors.items()
    }
    for name, value in tensors.items():
        if read[name].dtype != value.dtype or not torch.equal(read[name], value):
            what = "the converted file differs from its source"
            raise CheckpointError(what, where=out, seen=name)
    _compare(torchvision_stages(tensors), torchvision_stages(read), str(out))


@torch.no_grad()
def torchvision_stages(tensors: Tensors) -> list[Tensor]:
    """Return res2 to res5 [1, C, s, s] of one random image by torchvision's ResNet-50."""
    model = _holding(resnet.resnet50, tensors)
    x = model.maxpool(model.relu(model.bn1(model.conv1(_image()))))
    stages = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        stages.append(x)
    return stages


def detectron2_installed() -> bool:
    """Return whether Detectron2 can be imported, with a warning if it is installed but broken."""
    if find_spec("detectron2") is None:
        return False
    try:
        import_module("detectron2.modeling.backbone.resnet")
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.warning("Detectron2 is installed but broken, so the proof does not use it: %s", words)
        return False
    return True


@torch.no_grad()
def detectron2_stages(mapped: Tensors) -> list[Tensor]:
    """Return the same by Detectron2's own ResNet-50, from Detectron2's names."""
    from detectron2.modeling.backbone.resnet import BasicStem, ResNet

    def build() -> nn.Module:
        stages = ResNet.make_default_stages(50, norm="BN", stride_in_1x1=False)
        return ResNet(BasicStem(norm="BN"), stages, out_features=list(STAGES))  # type: ignore[no-any-return]

    features = _holding(build, mapped)(_image())
    return [features[name] for name in STAGES]


def _holding(build: Any, tensors: Tensors) -> Any:
    """Return a network in eval mode with these tensors, none of them initialised or copied."""
    with torch.device("meta"):
        model = build()
    missing, unexpected = model.load_state_dict(dict(tensors), strict=False, assign=True)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise CheckpointError(
            "a network does not take the 265 tensors", seen=", ".join([*missing, *unexpected][:3])
        )
    return model.eval()


def _image() -> Tensor:
    return torch.randn(1, 3, PX, PX, generator=torch.Generator().manual_seed(0))


def _compare(ours: list[Tensor], theirs: list[Tensor], where: str) -> None:
    difference = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if difference != 0.0:
        raise CheckpointError(
            "source and converted file give other features",
            where=where,
            seen=f"largest difference {difference}",
        )
