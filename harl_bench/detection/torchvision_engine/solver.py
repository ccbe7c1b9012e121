"""Detectron2's solver: parameter groups, learning rate, gradient clipping, precise batch norm."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.core.errors import DataError


def build_optimizer(recipe: Any, model: nn.Module) -> torch.optim.SGD:
    """Return SGD over the trainable parameters; norm layers have a weight decay of their own.

    Groups and the order in them are Detectron2's (solver/build.py), so optimizer states can be
    exchanged. If SOLVER.CLIP_GRADIENTS is on, each gradient value is clipped to +-CLIP_VALUE before
    every step.
    """
    solver = recipe.SOLVER
    groups: dict[float | None, list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                decay = solver.WEIGHT_DECAY_NORM if isinstance(module, _BatchNorm) else None
                if name == "bias" and solver.WEIGHT_DECAY_BIAS is not None:
                    decay = solver.WEIGHT_DECAY_BIAS
                groups.setdefault(decay, []).append(parameter)
    optimizer = torch.optim.SGD(
        [
            {"params": params, "weight_decay": solver.WEIGHT_DECAY if decay is None else decay}
            for decay, params in groups.items()
        ],
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    if solver.CLIP_GRADIENTS.ENABLED:
        parameters = [parameter for group in groups.values() for parameter in group]
        value = solver.CLIP_GRADIENTS.CLIP_VALUE
        optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_value_(parameters, value))
    return optimizer


def lr_at(recipe: Any, iteration: int) -> float:
    """Return the learning rate of a step, counted from 0: warm-up, then decay by GAMMA at STEPS.

    Computed in fractions of MAX_ITER, as fvcore's scheduler does: the last bit is the same, and a
    warm-up longer than the training is compressed into it, so `SOLVER.MAX_ITER=20` still ends at
    the full rate.
    """
    solver = recipe.SOLVER

    def decay(at: float) -> float:
        passed = sum(step <= solver.MAX_ITER and step <= at for step in solver.STEPS)
        return float(solver.GAMMA**passed)

    warm_iters = min(solver.WARMUP_ITERS, solver.MAX_ITER)
    if iteration >= warm_iters:
        return float(solver.BASE_LR * decay(iteration))
    start, end = solver.WARMUP_FACTOR * decay(0), decay(warm_iters)
    if solver.WARMUP_METHOD == "constant":
        return float(solver.BASE_LR * start)
    done = (iteration / solver.MAX_ITER) / min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    return float(solver.BASE_LR * (end * done + start * (1 - done)))


def set_lr(optimizer: torch.optim.Optimizer, recipe: Any, iteration: int) -> float:
    """Set the learning rate of this step in every group, and return it."""
    rate = lr_at(recipe, iteration)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def precise_bn(model: nn.Module, batches: Iterable[Any], iterations: int) -> int:
    """Replace the running statistics of trainable norms by those over `iterations` batches.

    fvcore's estimator ("Rethinking Batch in BatchNorm"), as in Detectron2: the model runs as in
    training, without gradients and with momentum 1. Mean and variance are pooled over batches by
    number of values. Frozen norms are untouched.

    Returns:
        The number of norm layers updated.

    Raises:
        DataError: fewer batches than iterations.
    """
    layers = get_bn_modules(model)
    if not layers:
        return 0
    count = 0

    def count_batches() -> Iterator[Any]:
        nonlocal count
        for batch in batches:
            count += 1
            yield batch

    try:
        update_bn_stats(model, count_batches(), iterations)
    except AssertionError:
        if count >= iterations:
            raise
        raise DataError(
            "too few batches for precise batch norm", seen=count, next=f"give {iterations}"
        ) from None
    return len(layers)
