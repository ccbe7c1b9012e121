"""Checkpoints made by the field's own code, where it is installed."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from harl_bench.convert.read import read_backbone
from tests.convert.layouts import MOMENTUM, state
from tests.convert.test_formats import assert_is


def network(first: float = 1.0, *, fc: bool = True) -> Any:
    """torchvision's ResNet-50 whose tensors are those of `state`."""
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    model.load_state_dict(state(first), assign=True)
    if not fc:
        model.fc = nn.Identity()
    return model


def test_wrappers_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for wrapped in (
        nn.DataParallel(network()),
        torch.compile(network()),
        nn.DataParallel(torch.compile(network())),
    ):
        torch.save(wrapped.state_dict(), path)
        assert_is(read_backbone(path), 1.0)


def test_swa_average_is_a_momentum_network_beside(tmp_path: Path) -> None:
    """torch.optim.swa_utils.AveragedModel puts `module.` in front and counts in `n_averaged`."""
    averaged = torch.optim.swa_utils.AveragedModel(network(MOMENTUM))
    torch.save(
        {"model": network().state_dict(), "model_ema": averaged.state_dict()}, tmp_path / "a.pth"
    )
    assert_is(read_backbone(tmp_path / "a.pth"), 1.0)
    assert_is(read_backbone(tmp_path / "a.pth", net="momentum"), MOMENTUM)


def test_lightly_byol_of_its_parts(tmp_path: Path) -> None:
    """As lightly's examples/pytorch/byol.py puts it together."""
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

    class BYOL(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(network().children())[:-1])
            self.projection_head = BYOLProjectionHead(2048, 16, 8)
            self.prediction_head = BYOLPredictionHead(8, 16, 8)
            self.backbone_momentum = nn.Sequential(*list(network(MOMENTUM).children())[:-1])

    torch.save(BYOL().state_dict(), tmp_path / "byol.pth")
    read = read_backbone(tmp_path / "byol.pth")
    assert_is(read, 1.0)
    assert read.ref.format == "lightly tutorial"
    assert_is(read_backbone(tmp_path / "byol.pth", net="momentum"), MOMENTUM)


def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    """solo-learn, Lightly and HARL save through it: loops, callbacks and hyper-parameters lie
    beside the weights.
    """
    lightning = pytest.importorskip("pytorch_lightning")

    class Method(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, settings: argparse.Namespace) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.backbone, self.momentum_backbone = network(), network(MOMENTUM)

    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(Method(argparse.Namespace(width=1)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    read = read_backbone(tmp_path / "last.ckpt")
    assert_is(read, 1.0)
    assert (read.ref.format, read.epoch) == ("solo-learn/harl official", 0)
    assert "argparse.Namespace" in read.stubs


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_model

    def made(name: str) -> Any:
        with torch.device("meta"):
            model = timm.create_model(name)
        return model

    model = made("resnet50")
    model.load_state_dict(state(), assign=True)  # timm's names are torchvision's
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert_is(read_backbone(tmp_path / "a.pth"), 1.0)
    save_model(made("resnet50").to_empty(device="cpu"), str(tmp_path / "model.safetensors"))
    assert len(read_backbone_names(tmp_path / "model.safetensors")) == 265
    for name, why in (
        ("resnet50d", "a deep stem"),
        ("resnetv2_50", "ResNet v2"),
        ("seresnet50", "channel attention"),
        ("skresnet50", "selective-kernel"),
        ("resnet50_clip", "a deep stem"),
        ("wide_resnet50_2", "a wide"),
        ("vit_tiny_patch16_224", "vision transformer"),
        ("resnet50_gn", "statistics are missing"),
    ):
        expanded = {
            k: torch.ones((), dtype=v.dtype).expand(v.shape)
            for k, v in made(name).state_dict().items()
        }
        torch.save(expanded, tmp_path / "b.pth")
        with pytest.raises(Exception, match=why):
            read_backbone(tmp_path / "b.pth")


def read_backbone_names(path: Path) -> list[str]:
    """Of the one complete network in a file."""
    from harl_bench.convert.networks import candidates
    from harl_bench.nn import checkpoint

    (found,) = (c for c in candidates(checkpoint.peek(path).payload) if c.complete)
    return list(found.tensors)
