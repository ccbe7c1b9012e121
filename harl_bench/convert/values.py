"""Check the values of a backbone: broken ones stop, lost statistics become departures."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import log

# Detectron2 folds statistics into a mean of 0 and a variance of 1 - 1e-5 (c2_model_loading.py)
EPS = 2e-5
EARLIER = "take an earlier checkpoint"


def check(path: Path, tensors: Mapping[str, Tensor], *, folded: bool = False) -> list[str]:
    """Return sentences about doubtful values, which are also logged as warnings.

    Args:
        path: for messages.
        tensors: the 265, torchvision's names.
        folded: whether statistics are known to be folded into scale and shift (Caffe's networks).

    Raises:
        CheckpointError: a tensor is not finite, a convolution is all zero, a variance is negative,
            or all are zero.
    """
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError("a tensor is not finite", where=path, seen=name, next=EARLIER)
        # Scales of batch norms may be zero, as residual blocks are initialised so.
        if value.dim() == 4 and not value.any():
            raise CheckpointError("a convolution is all zero", where=path, seen=name, next=EARLIER)
        if name.endswith("running_var") and not (value >= 0).all():
            raise CheckpointError(
                "a batch-norm variance is negative", where=path, seen=name, next=EARLIER
            )
    departures = _zero_variances(path, tensors)
    if not folded and (text := _untouched(tensors)):
        log.warning(
            "%s: %s; where they are folded into scale and shift (Caffe's ResNet-50, "
            "mmdetection's resnet50_caffe), say so: harl-bench convert %s --input caffe; "
            "otherwise they were lost, and the features are wrong",
            path.name,
            text,
            path.name,
        )
        departures.append(text)
    return departures


def untouched(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the batch norms (bn1, layer1.0.bn1 ...) with mean 0 and variance 1, as untrained."""
    suffix = ".running_mean"
    return [
        norm
        for norm in (name.removesuffix(suffix) for name in tensors if name.endswith(suffix))
        if not tensors[f"{norm}.running_mean"].any()
        and ((tensors[f"{norm}.running_var"] - 1).abs() <= EPS).all()
    ]


def _untouched(tensors: Mapping[str, Tensor]) -> str | None:
    norms = untouched(tensors)
    total = sum(name.endswith(".running_mean") for name in tensors)
    if not norms:
        return None
    counts = Counter(norm.partition(".")[0] for norm in norms)
    stages = ", ".join(f"{stage} {n}" for stage, n in counts.items())
    which = f"{len(norms)} of {total} batch norms ({stages})"
    if len(norms) == total:
        which = f"all {total} batch norms"
    return f"{which} have mean 0 and variance 1, as before training"


def _zero_variances(path: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return sentences about zero variances, and refuse a network that has no others.

    They come from half precision, which ends at 6e-8: a dead channel's variance lies below. A norm
    with zeros only may be dead or lost, so that is a departure.
    """
    variances = {name: value for name, value in tensors.items() if name.endswith("running_var")}
    if not any(value.any() for value in variances.values()):
        raise CheckpointError(
            "every batch-norm variance is 0", where=path, seen=f"{len(variances)}", next=EARLIER
        )
    zeros = sum(int((value == 0).sum()) for value in variances.values())
    if not zeros:
        return []
    log.warning(
        "%s: %s of %s batch-norm variances are 0, as half precision leaves them of dead channels",
        path.name,
        f"{zeros:,}",
        f"{sum(map(torch.numel, variances.values())):,}",
    )
    dead = [name for name, value in variances.items() if not value.any()]
    return [f"every variance of {len(dead)} batch norms is 0, such as {dead[0]}"] if dead else []
