"""DeepMind's checkpoints (haiku): join each network's parameters and state, laid out as torch's.

Source: deepmind-research byol/byol_experiment.py (_ByolExperimentState), haiku/_src/batch_norm.py,
moving_averages.py. ajtejankar/byol-convert does the same with dill. No tensor is read: only shapes
and strides are permuted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harl_bench.nn.lazytensor import LazyTensor

DEPTH = 3  # of the dict that holds the pair; DeepMind's lies at 1
PARAMETERS = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}
# Of each, "average" is the value without the bias of its start.
MOMENTS = {"mean_ema": "running_mean", "var_ema": "running_var"}


def joined(payload: Any, depth: int = DEPTH) -> Any:
    """Return the payload with the batch-norm statistics of `X_state` in `X_params`.

    `res_net50/~/initial_conv: {w: [H, W, I, O]}` becomes `res_net50/~/initial_conv.weight: [O, I,
    H, W]`. Any other payload is returned as it is.
    """
    if not isinstance(payload, Mapping) or depth < 0:
        return payload
    changed, used = {}, set()
    for name, value in payload.items():
        other = f"{name.removesuffix('params')}state" if isinstance(name, str) else ""
        params = isinstance(name, str) and name.endswith("params") and _modules(value)
        if params and _modules(payload.get(other)):
            changed[name] = _flat(value) | _statistics(payload[other])
            used.add(other)
        elif isinstance(value, Mapping) and (inner := joined(value, depth - 1)) is not value:
            changed[name] = inner
    if not changed:
        return payload
    return {**{k: v for k, v in payload.items() if k not in used}, **changed}


def _modules(value: Any) -> bool:
    """Return whether a value is {module: {name: tensor}}."""
    return isinstance(value, Mapping) and any(
        isinstance(module, Mapping)
        and any(isinstance(tensor, LazyTensor) for tensor in module.values())
        for module in value.values()
    )


def _flat(modules: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    return {
        f"{path}.{PARAMETERS.get(name, name)}": _as_torch(tensor)
        for path, module in modules.items()
        if isinstance(module, Mapping)
        for name, tensor in module.items()
        if isinstance(tensor, LazyTensor)
    }


def _statistics(modules: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    statistics = {}
    for path, module in modules.items():
        norm, _, moment = str(path).rpartition("/~/")
        average = module.get("average") if isinstance(module, Mapping) else None
        if moment in MOMENTS and isinstance(average, LazyTensor):
            statistics[f"{norm}.{MOMENTS[moment]}"] = _as_torch(average)
    return statistics


def _as_torch(tensor: LazyTensor) -> LazyTensor:
    """Return [H, W, I, O] as [O, I, H, W], [I, O] as [O, I], a norm's [1, 1, 1, C] as [C]."""
    axes = []
    if set(tensor.shape[:-1]) == {1}:
        axes = [axis for axis, n in enumerate(tensor.shape) if n > 1]
    if not axes:
        axes = {4: [3, 2, 0, 1], 2: [1, 0]}.get(len(tensor.shape), list(range(len(tensor.shape))))
    return replace(
        tensor,
        shape=tuple(tensor.shape[a] for a in axes),
        stride=tuple(tensor.stride[a] for a in axes),
    )
