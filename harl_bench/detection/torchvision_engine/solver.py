"""What Detectron2's solver does: parameter groups, learning rate per iteration, clipping, precise
batch norm.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.core.errors import DataError


def build_optimizer(recipe: Any, model: nn.Module) -> torch.optim.SGD:
    """SGD over the trainable parameters: norm layers with WEIGHT_DECAY_NORM, the rest with
    WEIGHT_DECAY.

    Groups and the order in them are Detectron2's (solver/build.py), so optimiser states can be
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
    """Learning rate of the step with this 0-based index: warm-up, then BASE_LR x
    GAMMA^(SOLVER.STEPS passed).

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
    """Give every group the learning rate of this step, and return it."""
    rate = lr_at(recipe, iteration)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def precise_bn(model: nn.Module, batches: Iterable[Any], iterations: int) -> int:
    """Replace the running statistics of trainable norms by those of the whole population of
    `iterations` batches.

    fvcore's estimator ("Rethinking Batch in BatchNorm"), as in Detectron2: the model runs as in
    training, without gradients, momentum 1; mean and variance are pooled over batches by number of
    values. Frozen norms are untouched.

    Returns:
        The number of norm layers updated.

    Raises:
        DataError: fewer batches than iterations.
    """
    layers = get_bn_modules(model)
    if not layers:
        return 0
    drawn = 0

    def counted() -> Iterator[Any]:
        nonlocal drawn
        for batch in batches:
            drawn += 1
            yield batch

    try:
        update_bn_stats(model, counted(), iterations)
    except AssertionError:
        if drawn >= iterations:
            raise
        raise DataError(
            "too few batches for precise batch norm", seen=drawn, next=f"give {iterations}"
        ) from None
    return len(layers)
