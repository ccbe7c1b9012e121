"""last.pth: everything that going on needs, and the backbone under torchvision's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harl_bench.convert.formats import IMAGENET
from harl_bench.core.manifest import collect
from harl_bench.core.progress import log
from harl_bench.nn import checkpoint, distributed, resnet, runtime
from pretrain.config import PretrainConfig
from pretrain.methods.method import Method
from pretrain.probe import Probe
from pretrain.views import pixel_std

LAST = "last.pth"


def save(
    path: Path, method: Method, optimizer: torch.optim.Optimizer, probe: Probe | None, step: int, K: int, *,
    epoch: int, config: PretrainConfig,
) -> None:  # fmt: skip
    """Write the state after `step` optimiser steps of K; every process calls it, the first one writes."""
    rngs = distributed.gather(runtime.rng_state())
    if distributed.is_main():
        checkpoint.save(
            path,
            backbone=resnet.backbone_tensors(method.backbone),
            method=method.state_dict(),
            optimizer=optimizer.state_dict(),
            **({"probe": probe.state()} if probe else {}),
            step=step,
            steps=K,
            rng=rngs,
            config=config.model_dump(),
            manifest=collect(),
            harl_bench={
                "format": "harl-bench", "net": "online", "epoch": epoch, "method": config.method,
                "input_format": IMAGENET.input_format, "pixel_mean": list(IMAGENET.pixel_mean),
                "pixel_std": list(pixel_std(config)), "stride_in_1x1": False,
                "feature_grid": config.feature_grid,
                **({"high_pass": True} if config.high_passed else {}),
            },
        )  # fmt: skip
    distributed.barrier()


def resume(path: Path, method: Method, optimizer: torch.optim.Optimizer, probe: Probe | None) -> int:
    """Load the state that `save` wrote, if any; return the step to begin with."""
    if not path.exists():
        return 0
    state = checkpoint.load_own(path)
    method.load_state_dict(renamed(state["method"], method.state_dict()))
    optimizer.load_state_dict(state["optimizer"])
    if probe and "probe" in state:
        probe.load(state["probe"])
    rngs = state["rng"] if isinstance(state["rng"], list) else [state["rng"]]
    runtime.set_rng_state(rngs[min(distributed.rank(), len(rngs) - 1)])
    log.info("going on at step %d of %d", state["step"], state["steps"])
    return int(state["step"])


def renamed(tensors: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's state under today's names: before 0.2 a wrapper's networks had no prefix `base.`."""
    return {key if key in expected else f"base.{key}": value for key, value in tensors.items()}
