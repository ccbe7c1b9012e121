"""Write a backbone in Detectron2's or torchvision's format, read it back, and prove that nothing changed."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import harl_bench
from harl_bench.convert.names import to_detectron2
from harl_bench.convert.read import Backbone, read_backbone
from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.core.results import replacing
from harl_bench.nn import resnet

LAYOUTS = ("detectron2", "torchvision")
PROOF_PX = 64  # enough for every stage to see more than one cell


def write(backbone: Backbone, out: Path, *, layout: str = "detectron2") -> None:
    """Write the 265 tensors and a `harl_bench` entry with their origin.

    Args:
        out: .pkl (NumPy arrays, as Detectron2's own model files), .pth or .safetensors.
        layout: "detectron2" or "torchvision" names.

    Raises:
        UsageError: another ending, or a .pkl of torchvision's layout, which nobody reads.
    """
    names = {name: to_detectron2(name) if layout == "detectron2" else name for name in backbone.tensors}
    tensors = {names[name]: value for name, value in backbone.tensors.items()}
    meta = about(backbone)
    if out.suffix not in (".pkl", ".pth", ".safetensors") or (out.suffix == ".pkl" and layout == "torchvision"):
        raise UsageError(
            "cannot write this kind of file", seen=f"{out.name}, layout {layout}", next="end --out in .pkl or .pth"
        )
    with replacing(out) as temporary:
        if out.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata={"harl_bench": json.dumps(meta)})
        elif layout == "torchvision":
            with open(temporary, "wb") as file:  # given a path, torch hides that the disk is full
                torch.save({"state_dict": tensors, "harl_bench": meta}, file)
        else:
            # Without both `model` and `__author__` Detectron2 takes a file for Caffe2's (docs/convert.md 2).
            header = {"__author__": "harl-bench", "matching_heuristics": True, "harl_bench": meta}
            if out.suffix == ".pth":
                with open(temporary, "wb") as file:  # given a path, torch hides that the disk is full
                    torch.save({"model": tensors, **header}, file)
            else:
                arrays = {name: value.numpy() for name, value in tensors.items()}
                temporary.write_bytes(pickle.dumps({"model": arrays, **header}, protocol=4))


def about(backbone: Backbone) -> dict[str, Any]:
    """The provenance that travels in the converted file; detection compares it with its recipe before training."""
    return {
        "tool_version": harl_bench.__version__,
        "source": backbone.ref.name,
        "source_sha256": backbone.ref.sha256,
        "format": backbone.ref.format,
        "method": backbone.method,
        "net": backbone.ref.net,
        "epoch": backbone.epoch,
        "input_format": backbone.input.input_format,
        "pixel_mean": list(backbone.input.pixel_mean),
        "pixel_std": list(backbone.input.pixel_std),
        **({"high_pass": True} if backbone.input.high_pass else {}),
        "stride_in_1x1": backbone.stride_in_1x1,
    }


def prove(backbone: Backbone, out: Path) -> str:
    """Read the written file back and compare: every tensor bit for bit, then res2..res5 of one random picture.

    Returns:
        One line that says what was compared.

    Raises:
        CheckpointError: a difference.
    """
    written = read_backbone(out)
    for name, value in backbone.tensors.items():
        if not torch.equal(written.tensors[name], value):
            raise CheckpointError("the converted file differs from its source", where=out, seen=name)
    difference = max(float((a - b).abs().max()) for a, b in zip(_stages(backbone), _stages(written), strict=True))
    if difference != 0.0:
        raise CheckpointError(
            "source and converted file give other features", where=out, seen=f"largest difference {difference}"
        )
    return "res2, res3, res4, res5 of one random picture are equal, source against converted: largest difference 0.0"


@torch.no_grad()
def _stages(backbone: Backbone) -> list[Tensor]:
    model = resnet.resnet50().eval()
    resnet.load_backbone(model, backbone.tensors)
    x = torch.randn(1, 3, PROOF_PX, PROOF_PX, generator=torch.Generator().manual_seed(0))
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    stages = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        stages.append(x)
    return stages
