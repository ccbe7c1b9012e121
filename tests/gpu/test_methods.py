"""A step of each method: a GPU's loss, gradients and weights are the CPU's, bf16's are close."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain import loop
from pretrain.batch import Batch, Scene
from pretrain.config import PretrainConfig
from pretrain.data import on_device
from pretrain.methods import METHODS
from pretrain.optim import build_optimizer, set_learning_rate
from tests.gpu.conftest import CPU, Agree
from tests.pretrain.test_methods import seeded, small

pytestmark = pytest.mark.gpu
B, SIDE, K = 8, 32, 10
WIDE = {
    "image_size": SIDE,
    "batch_size": B,
    "projector_hidden": 64,
    "projector_out": 32,
    "predictor_hidden": 64,
    "queue_size": 64,
    "feature_grid": 28,
    "classes": 4,
}
SGD = {"optimizer": "sgd", "base_lr": 0.1}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "mocov2": {"method": "mocov2", **SGD},
    "simsiam": {"method": "simsiam", **SGD},
    "supervised": {"method": "supervised", **SGD},
    "harl on simclr": {"method": "harl", "base": "simclr"},
    "harl on mocov2": {"method": "harl", "base": "mocov2", **SGD},
    "harl, any cell, gap": {"method": "harl", "mask_rule": "any", "mask_pooling": "gap"},
    "saliency_mask on mocov2": {"method": "saliency_mask", "base": "mocov2", **SGD},
}


def whole_batch() -> Batch:
    """Smooth views with noise, discs as masks and one image without, labels, two local crops."""
    g = torch.Generator().manual_seed(1)
    coarse = torch.randn(2 * B, 3, 4, 4, generator=g)
    views = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic").view(2, B, 3, SIDE, SIDE)
    views += 0.3 * torch.randn(views.shape, generator=g)
    axis = torch.linspace(-1, 1, SIDE)
    radius = torch.linspace(0.3, 0.9, B).view(1, B, 1, 1, 1)
    masks = ((axis[:, None] ** 2 + axis**2).sqrt() < radius).float().expand(2, B, 1, SIDE, SIDE)
    corners = torch.rand(4, B, 2, generator=g) * 0.6
    whole = torch.randint(0, 256, (B, 3, 224, 224), generator=g, dtype=torch.uint8)
    local = torch.randn(2, B, 3, 16, 16, generator=g)
    scene = Scene(torch.arange(B), whole, torch.cat([corners, corners + 0.3], dim=-1), local)
    has_mask = torch.arange(B) != 3
    return Batch(views, masks.contiguous(), has_mask, labels=torch.arange(B) % 4, scene=scene)


def configured(case: str, **changes: object) -> PretrainConfig:
    return small(**{**WIDE, **CASES[case], **changes})  # type: ignore[arg-type]


def stepped(case: str, device: torch.device, *, bf16: bool = False) -> dict[str, list[Tensor]]:
    """Return what one optimiser step computes and leaves behind."""
    config = configured(case)
    method = seeded(config)
    if isinstance(maps := getattr(method, "maps", None), torch.nn.Module):
        method.maps = type(maps)(B)
    step = loop.on_its_device(method, config, device)
    optimizer = build_optimizer(method, config)
    set_learning_rate(optimizer, config, 3, K, 0)
    batch = whole_batch()
    labels = batch.labels.to(device) if batch.labels is not None else None
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        output = step(on_device(batch, device, labels), 3, K)
    output.loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    optimizer.step()
    method.after_step(3, K)
    return {
        "loss": [output.loss.detach()],
        "gradients": gradients,
        "parameters": [p.detach() for p in method.parameters()],
        "buffers": [b for _, b in method.named_buffers()],
    }


@pytest.mark.parametrize("case", CASES)
def test_a_step_in_float32(case: str, both: Any, agree: Agree, same_draws: None) -> None:
    """Gradients have slack for ReLUs at their kink.

    On one CPU, views that differ by 3e-7 move these gradients by up to 2.1e-2 (MoCo v2, whose groups
    of batch norm have one image here) and 1e-2 (HARL); an H200 differed from a CPU by 2.1e-2.
    """
    reference, value = both(lambda device: stepped(case, device))
    for what, tolerance in (
        ("loss", 1e-4),
        ("gradients", 5e-2),
        ("parameters", 1e-4),
        ("buffers", 1e-4),
    ):
        agree(what, value[what], reference[what], tolerance)


@pytest.mark.parametrize("case", ["harl", "byol", "simclr", "mocov2"])
def test_bf16_is_close(case: str, device: torch.device, agree: Agree) -> None:
    """Weights, losses and their update stay float32, whatever the convolutions round to.

    SimSiam's first loss is a cosine near 0, whose relative difference says nothing.
    """
    reference, value = (stepped(case, device, bf16=bf16) for bf16 in (False, True))
    assert {x.dtype for part in value.values() for x in part} <= {
        torch.float32,
        torch.int64,
        torch.bool,
    }
    agree("loss", value["loss"], reference["loss"], 3e-2)
    agree("parameters", value["parameters"], reference["parameters"], 1e-2)


def test_the_layout_in_memory_changes_nothing(device: torch.device, agree: Agree) -> None:
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        method = seeded(configured("harl")).to(device, memory_format=layout)
        losses.append(method(on_device(whole_batch(), device), 3, K).loss)
    agree("loss", losses[1], losses[0], 1e-4)


def test_a_state_of_the_device_goes_on_on_the_cpu(device: torch.device, agree: Agree) -> None:
    """Its next loss is the same there, queue, target and statistics included."""
    config = configured("harl on mocov2")
    first = seeded(config).to(device)
    first(on_device(whole_batch(), device), 0, K)
    first.after_step(0, K)
    state = {name: tensor.cpu().clone() for name, tensor in first.state_dict().items()}
    second = seeded(config)
    with torch.no_grad():
        for tensor in [*second.parameters(), *second.buffers()]:
            tensor.zero_()
    second.load_state_dict(state)
    expected = first(on_device(whole_batch(), device), 1, K).loss
    agree("loss", second(on_device(whole_batch(), CPU), 1, K).loss, expected, 1e-4)
