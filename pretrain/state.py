"""last.pth: everything that going on needs, and the backbone under torchvision's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harl_bench.core.images import IMAGENET_MEAN
from harl_bench.core.manifest import collect
from harl_bench.core.progress import log
from harl_bench.nn import checkpoint, distributed, resnet, runtime
from pretrain.config import PretrainConfig
from pretrain.methods.method import Method
from pretrain.probe import Probe
from pretrain.recipe import settings
from pretrain.views import pixel_std

LAST = "last.pth"


def save(
    path: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    probe: Probe | None,
    step: int,
    K: int,
    *,
    epoch: int,
    config: PretrainConfig,
    data: str,
    toy: bool = False,
) -> None:
    """Write the state after `step` optimiser steps of K; every process calls it, the first one
    writes.

    Args:
        toy: whether data or recipe are toys, so that whatever measures the backbone says so
            (core/toy.py).
    """
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
            data_fingerprint=data,
            manifest=collect(),
            harl_bench={
                "format": "harl-bench",
                "net": "online",
                "epoch": epoch,
                "method": config.method,
                "input_format": "RGB",
                "pixel_mean": list(IMAGENET_MEAN),
                "pixel_std": list(pixel_std(config)),
                "stride_in_1x1": False,
                "feature_grid": config.feature_grid,
                **({"high_pass": True} if config.high_passed else {}),
                **({"toy": True} if toy else {}),
            },
        )
    distributed.barrier()


def refuse_another_run(
    path: Path, state: Mapping[str, Any], config: PretrainConfig, data: str
) -> None:
    """Compare what a state says about its own run with the run that would resume it.

    Args:
        data: fingerprint of the images; states written before it was kept have none.

    Raises:
        UsageError: the state has other settings, or was trained on other data.
    """
    checkpoint.refuse_another_run(
        path,
        settings(state["config"]) | {"data": state.get("data_fingerprint", data)[:12]},
        settings(config.model_dump()) | {"data": data[:12]},
    )


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what changed between the identities of two runs, in words."""
    old = before.get("config")
    seen = checkpoint.difference(old, now["config"]) if isinstance(old, dict) else ""
    if not seen and before.get("processes") != now.get("processes"):
        seen = (
            f"{before.get('processes')} processes, now {now.get('processes')}, each with batch "
            "norm of its own"
        )
    if not seen and before.get("data_fingerprint") == now.get("data_fingerprint"):
        noted, present = (dict(about.get("contents", {})) for about in (before, now))
        differing = [name for name in present if noted.get(name) != present[name]]
        seen = f"other {' and '.join(differing)} of the same names and sizes" if differing else ""
    return seen or "its data changed"


def resume(
    path: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    probe: Probe | None,
    *,
    config: PretrainConfig,
    data: str,
) -> int:
    """Load the state that `save` wrote, if any; return the step to begin with.

    Raises:
        UsageError: it is another run's.
    """
    if not path.exists():
        return 0
    state = checkpoint.load_own(path)
    refuse_another_run(path, state, config, data)
    method.load_state_dict(renamed(state["method"], method.state_dict()))
    optimizer.load_state_dict(state["optimizer"])
    if probe and "probe" in state:
        probe.load(state["probe"])
    rngs = state["rng"] if isinstance(state["rng"], list) else [state["rng"]]
    runtime.set_rng_state(rngs[min(distributed.rank(), len(rngs) - 1)])
    log.info("going on at step %d of %d", state["step"], state["steps"])
    return int(state["step"])


def renamed(tensors: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's state under today's names: before 0.2 no network had a prefix `base.`."""
    return {key if key in expected else f"base.{key}": value for key, value in tensors.items()}
