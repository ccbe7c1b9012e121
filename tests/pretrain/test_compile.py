"""`compile=true`: one graph a step, the same for every step, and the numbers of eager code."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters
from torch.nn import Identity, MaxPool2d, Sequential
from torchvision.models.resnet import BasicBlock, ResNet

from harl_bench.nn import resnet
from harl_bench.nn.norms import SplitBatchNorm
from pretrain.methods.method import Method
from pretrain.optim import build_optimizer, set_learning_rate
from pretrain.probe import Probe
from tests.pretrain.test_methods import batch, seeded, small

CASES: dict[str, dict[str, Any]] = {
    "simclr": {"method": "simclr"},
    "byol": {"method": "byol"},
    "mocov2": {"method": "mocov2", "queue_size": 16},
    "mocov2 in groups": {
        **{"method": "mocov2", "queue_size": 32, "batch_size": 16},
        **{"sync_bn": False, "bn_groups": 8},
    },
    "simsiam": {"method": "simsiam"},
    "harl": {"method": "harl"},
    "harl on simclr": {"method": "harl", "base": "simclr"},
    "harl on mocov2": {"method": "harl", "base": "mocov2", "queue_size": 32},
    "harl on simsiam": {"method": "harl", "base": "simsiam"},
    "saliency_mask on mocov2": {"method": "saliency_mask", "base": "mocov2", "queue_size": 16},
    "saliency_mask on byol": {"method": "saliency_mask", "hard_negative_weight": 1.0},
}


def short_resnet(*_: object, bn_groups: int = 1, **__: object) -> ResNet:
    """ResNet-18 with one block, the last: tracing takes the tests' time."""
    norm = partial(SplitBatchNorm, groups=bn_groups) if bn_groups > 1 else None
    network = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm)
    network.layer1 = Sequential()
    network.layer2 = network.layer3 = Sequential(MaxPool2d(2))
    network.inplanes = 64
    network.layer4 = network._make_layer(BasicBlock, 512, 1, stride=2)
    network.fc = Identity()  # type: ignore[assignment]
    return network


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(resnet, "build", short_resnet)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def trained(about: dict[str, Any], backend: str | None, *, steps: int) -> tuple[Any, ...]:
    """Losses, probe's accuracies and state after some steps of two parts each, with a probe."""
    config = small(**about)
    method: Method = seeded(config)
    optimizer = build_optimizer(method, config)
    probe = Probe(method.backbone, features=512, classes=2, base_lr=0.1, batch_size=4)
    if backend:
        method.compile_step(backend)
    images = 2 * about.get("bn_groups", 2)
    losses, right = [], []
    for k in range(steps):
        set_learning_rate(optimizer, config, k, 10, 1)
        optimizer.zero_grad()
        for _ in range(2):
            output = method(batch(images, 32), k, 10)
            (output.loss / 2).backward()  # type: ignore[no-untyped-call]
            right.append(float(probe.learn(torch.arange(images) % 2, 2)))
        optimizer.step()
        method.after_step(k, 10)
        probe.step(k, 10)
        losses.append(output.loss.item())
    return losses, right, {**method.state_dict(), **probe.linear.state_dict()}


def test_five_steps_are_one_graph() -> None:
    trained(CASES["simclr"], "eager", steps=5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_method_is_one_graph_with_eagers_numbers(name: str) -> None:
    plain = trained(CASES[name], None, steps=5)
    compiled = trained(CASES[name], "aot_eager", steps=5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert plain[:2] == compiled[:2]
    assert all(torch.equal(x, compiled[2][part]) for part, x in plain[2].items())
