"""Nothing in a step makes the CPU wait for the device; copies to it are few."""

import contextlib
import traceback
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harl_bench.nn import resnet
from harl_bench.nn.runtime import sent
from pretrain import colors, data
from pretrain.batch import Batch
from pretrain.optim import build_optimizer, set_learning_rate
from pretrain.probe import Probe
from pretrain.views import BYOL_VIEWS
from tests.pretrain.test_methods import seeded, small

READ = {"item", "tolist", "cpu", "numpy", "nonzero", "__float__", "__int__", "__bool__"}
FROM_HOST = {"tensor", "as_tensor", "new_tensor"}
CASES: dict[str, dict[str, Any]] = {
    "harl": {"method": "harl", "feature_grid": 28},
    "byol": {"method": "byol"},
    "simclr": {"method": "simclr"},
    "mocov2": {"method": "mocov2", "queue_size": 64, "optimizer": "sgd"},
    "simsiam": {"method": "simsiam"},
    "harl on mocov2": {"method": "harl", "base": "mocov2", "queue_size": 64},
    "supervised": {"method": "supervised", "classes": 2},
}


class Waits(TorchFunctionMode):
    """Counts what would stop the CPU until a GPU is done, and copies to it.

    The device is torch's `meta`, whose tensors hold nothing: what reads one fails, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        out = func(*args, **kwargs)
        far = isinstance(out, Tensor) and out.is_meta
        near = bool(args) and isinstance(args[0], Tensor) and not args[0].is_meta
        if far and name == "to" and near:
            self.copies += 1
            self.note(not kwargs.get("non_blocking"), name)
        self.note(far and name in FROM_HOST, name)
        self.note(name in READ and not near, name)
        if name in ("__getitem__", "__setitem__") and not near:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            tensors = [i for i in index if isinstance(i, Tensor)]
            self.note(any(not i.is_meta or i.dtype == torch.bool for i in tensors), name)
        return out

    def note(self, waits: bool, name: str) -> None:
        if waits:
            frames = traceback.extract_stack()[:-2]
            ours = [f for f in frames if "/pretrain/" in f.filename or "/harl_bench/" in f.filename]
            self.waits[f"{name} in {ours[-1].name}"] += 1


def unfinished(n: int = 32, side: int = 32) -> Batch:
    """A batch as it leaves the data workers of a run on a GPU, with every change of color."""
    rng = np.random.default_rng(0)
    drawn = [np.stack([colors.draw(view, rng) for _ in range(n)]) for view in BYOL_VIEWS]
    assert all((np.stack(drawn)[..., part] > 0).any() for part in (4, 8, 9, 10))
    views = torch.randint(0, 256, (2, n, 3, side, side), dtype=torch.uint8)
    masks = torch.ones(2, n, 1, 4, 4, dtype=torch.uint8)
    batch = Batch(views, masks, torch.ones(n, dtype=torch.bool))
    return replace(batch, colors=torch.from_numpy(np.stack(drawn)))


class Step:
    """One step of a method as the loop makes it, with a probe."""

    def __init__(self, about: dict[str, Any], device: torch.device) -> None:
        self.config, self.device, self.batch = small(**about), device, unfinished()
        self.method = seeded(self.config).to(device)
        self.optimizer = build_optimizer(self.method, self.config)
        features = resnet.FEATURES[self.config.backbone]
        self.probe = Probe(
            self.method.backbone, features=features, classes=2, base_lr=0.1, batch_size=32
        )
        self.probe.linear.to(device)
        self.labels = torch.arange(32) % 2

    def __call__(self, k: int) -> Tensor:
        set_learning_rate(self.optimizer, self.config, k, 10, 1)
        self.optimizer.zero_grad(set_to_none=True)
        labels = sent(self.labels, self.device)
        batch = data.on_device(self.batch, self.device, labels)
        output = self.method(batch, k, 10)
        output.loss.backward()
        self.probe.learn(labels, 1)
        self.optimizer.step()
        self.method.after_step(k, 10)
        self.probe.step(k, 10)
        loss: Tensor = output.loss.detach()
        return loss


@pytest.mark.parametrize("name", CASES)
def test_a_steady_step_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It knows no such device, and is off here anyway.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    step = Step(CASES[name], torch.device("meta"))
    step(0)  # constants reach the device
    with Waits() as waits:
        step(1)
    assert not waits.waits
    assert waits.copies == 6  # views, masks, which have one, labels; rows and amounts of colors


def test_what_would_wait_is_noticed() -> None:
    x = torch.ones(3, device="meta")
    with Waits() as waits:
        x.new_tensor([1.0, 2.0, 3.0])
        torch.tensor([1.0], device="meta")
        torch.ones(3).to("meta")
        x[torch.tensor([0, 1])]
        with pytest.raises(RuntimeError):
            float(x[0])
    assert sum(waits.waits.values()) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [*CASES, "saliency_mask"])
def test_a_steady_step_waits_for_no_gpu(name: str) -> None:
    """CUDA's own watch, which also sees what PyTorch does inside."""
    about = CASES.get(name, {"method": "saliency_mask"})
    step = Step(about, torch.device("cuda"))
    step.batch = step.batch.pin_memory()
    step(0), step(1)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)
