"""DeepMind's checkpoints (haiku): parameters and state of each network become one dict, laid out as
torch's.

Source: deepmind-research byol/byol_experiment.py (_ByolExperimentState), haiku/_src/batch_norm.py,
    moving_averages.py;
the same as ajtejankar/byol-convert does, without dill. Nothing is read: only shapes and strides are
permuted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harl_bench.nn.lazytensor import LazyTensor

DEPTH = 3  # of the dict that holds the pair; DeepMind's lies at 1
PARAMETERS = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}
MOMENTS = {
    "mean_ema": "running_mean",
    "var_ema": "running_var",
}  # "average" is the one without the start's bias


def joined(payload: Any, depth: int = DEPTH) -> Any:
    """Return the payload in which `X_params` holds the batch-norm statistics of `X_state` too, all
    under flat names.

    `res_net50/~/initial_conv: {w: [H, W, I, O]}` becomes `res_net50/~/initial_conv.weight: [O, I,
    H, W]`. Any other payload is returned as it is.
    """
    if not isinstance(payload, Mapping) or depth < 0:
        return payload
    changed = {}
    for name, value in payload.items():
        state = (
            payload.get(f"{name.removesuffix('params')}state") if isinstance(name, str) else None
        )
        if (
            isinstance(name, str)
            and name.endswith("params")
            and _modules(value)
            and isinstance(state, Mapping)
            and _modules(state)
        ):
            changed[name] = _flat(value) | _statistics(state)
        elif isinstance(value, Mapping) and (inner := joined(value, depth - 1)) is not value:
            changed[name] = inner
    used = {f"{name.removesuffix('params')}state" for name in changed if name.endswith("params")}
    return (
        {**{k: v for k, v in payload.items() if k not in used}, **changed} if changed else payload
    )


def _modules(value: Any) -> bool:
    """Whether a value is {module: {name: tensor}}."""
    return isinstance(value, Mapping) and any(
        isinstance(held, Mapping)
        and any(isinstance(tensor, LazyTensor) for tensor in held.values())
        for held in value.values()
    )


def _flat(modules: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    return {
        f"{module}.{PARAMETERS.get(name, name)}": _as_torch(tensor)
        for module, held in modules.items()
        if isinstance(held, Mapping)
        for name, tensor in held.items()
        if isinstance(tensor, LazyTensor)
    }


def _statistics(modules: Mapping[Any, Any]) -> dict[str, LazyTensor]:
    statistics = {}
    for path, held in modules.items():
        module, _, moment = str(path).rpartition("/~/")
        if (
            moment in MOMENTS
            and isinstance(held, Mapping)
            and isinstance(held.get("average"), LazyTensor)
        ):
            statistics[f"{module}.{MOMENTS[moment]}"] = _as_torch(held["average"])
    return statistics


def _as_torch(tensor: LazyTensor) -> LazyTensor:
    """[H, W, I, O] as [O, I, H, W], [I, O] as [O, I], and a norm's [1, 1, 1, C] or [1, C] as
    [C].
    """
    axes = (
        [axis for axis, n in enumerate(tensor.shape) if n > 1]
        if set(tensor.shape[:-1]) == {1}
        else None
    )
    if axes is None or not axes:
        axes = {4: [3, 2, 0, 1], 2: [1, 0]}.get(len(tensor.shape), list(range(len(tensor.shape))))
    return replace(
        tensor,
        shape=tuple(tensor.shape[a] for a in axes),
        stride=tuple(tensor.stride[a] for a in axes),
    )
