"""Networks that are not the ResNet-50 of the tables: each is refused, and each with its own
reason.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import CheckpointError
from tests.convert.layouts import prefixed, small, state


def of(name: str) -> dict[str, torch.Tensor]:
    """torchvision's network, without memory for its weights."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)().state_dict()
    return {key: torch.ones(()).expand(meta.shape) for key, meta in shapes.items()}


def shaped(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """A ResNet-50 of which some tensors have another shape; names with _ for the dot after a
    stage's parts.
    """
    return state() | {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}


def deep_stem(**prefix: str) -> dict[str, torch.Tensor]:
    """timm's resnet50d (timm/models/resnet.py, stem_type deep): conv1 is a Sequential, shortcuts
    pool first.
    """
    made = {k: v for k, v in state().items() if k != "conv1.weight"}
    stem = {f"conv1.{n}.weight": torch.ones(()).expand(32, 3, 3, 3) for n in (0, 3, 6)}
    return stem | {
        k.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): v
        for k, v in made.items()
    }


# (what, its source, how it is laid out, what the reason must say)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "ResNet-18": (lambda: of("resnet18"), "basic blocks"),
    "ResNet-34": (lambda: of("resnet34"), "basic blocks"),
    "ResNet-101": (lambda: of("resnet101"), "deeper than ResNet-50"),
    "ResNet-152": (lambda: of("resnet152"), "deeper than ResNet-50"),
    "wide ResNet-50-2": (lambda: of("wide_resnet50_2"), "a wide ResNet"),
    "ResNeXt-50": (lambda: of("resnext50_32x4d"), "ResNeXt"),
    "ViT, torchvision": (lambda: of("vit_b_16"), "vision transformer"),
    "ViT, timm": (
        lambda: small("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
        "vision transformer",
    ),
    "width 2, SimCLR v1": (
        lambda: {"state_dict": shaped(**{"conv1.weight": (128, 3, 7, 7)})},
        "has not 64 channels",
    ),
    "deep stem and pooled shortcut, timm resnet50d": (deep_stem, "a deep stem"),
    "mmcls ResNetV1d: stem.0": (
        lambda: {"state_dict": small("backbone.stem.0.weight", "backbone.layer1.0.conv1.weight")},
        "a deep stem",
    ),
    "pooled shortcut alone (v1d of GluonCV)": (
        lambda: {
            k.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): v
            for k, v in state().items()
        },
        "average-pooled shortcut",
    ),
    "ResNet v2, timm resnetv2_50": (
        lambda: small("stem.conv.weight", "stages.0.blocks.0.norm1.weight", "norm.weight"),
        "ResNet v2",
    ),
    "ResNet v2, BiT": (
        lambda: small("root.conv.weight", "body.block1.unit01.conv1.weight"),
        "ResNet v2",
    ),
    "CLIP RN50": (
        lambda: small(
            "visual.conv1.weight", "visual.layer1.0.conv1.weight", "visual.attnpool.q_proj.weight"
        ),
        "CLIP",
    ),
    "CIFAR stem, solo-learn --cifar": (
        lambda: prefixed("") | {"conv1.weight": torch.ones(()).expand(64, 3, 3, 3)},
        "CIFAR stem",
    ),
    "Sobel, OpenSelfSup DeepCluster": (
        lambda: {"state_dict": shaped(**{"conv1.weight": (64, 2, 7, 7)})},
        "two-channel",
    ),
    "SK, timm skresnet50": (
        lambda: small(
            "conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.attn.fc_reduce.weight"
        ),
        "selective-kernel",
    ),
    "SK, SimCLR v2": (
        lambda: {
            "resnet": small(
                "net.0.0.weight",
                "net.1.blocks.0.net.0.weight",
                "net.1.blocks.0.net.2.mixing_conv.0.weight",
            )
        },
        "selective-kernel",
    ),
    "wide, SimCLR v2": (
        lambda: {
            "resnet": {
                "net.0.0.weight": torch.ones(()).expand(128, 3, 7, 7),
                **small("net.1.blocks.0.net.0.weight"),
            }
        },
        "has not 64 channels",
    ),
    "SE, timm seresnet50": (lambda: state() | small("layer1.0.se.fc1.weight"), "channel attention"),
    "group norm, timm resnet50_gn": (
        lambda: {k: v for k, v in state().items() if "running" not in k},
        "running statistics are missing",
    ),
    "int8": (lambda: {k: v.to(torch.int8) for k, v in state().items()}, "int8"),
    "quantised": (
        lambda: {
            "conv1.weight": torch.quantize_per_tensor(torch.ones(64, 3, 7, 7), 0.1, 0, torch.qint8)
        },
        "int8",
    ),
    "nothing": (lambda: {"epoch": 3}, "no tensors"),
    "a list": (lambda: [torch.ones(2)], "no tensors"),
    "other names": (lambda: small("embeddings.word.weight"), "1 tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, why = REFUSED[name]
    path = tmp_path / "other.pth"
    torch.save(make(), path)
    assert main(["convert", str(path), "--out", str(tmp_path / "x.pkl")]) == 4
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.pkl").exists()
    assert main(["convert", str(path), "--inspect"]) == 0
    if why not in ("1 tensors", "no tensors"):
        assert why in capsys.readouterr().out


def test_a_whole_model_is_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"only pickled objects.*save model\.state_dict"):
        read_backbone(tmp_path / "model.pth")
