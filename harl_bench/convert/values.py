"""What the numbers of a backbone say about it: broken ones stop, lost batch-norm statistics become
departures.
"""

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
    """Return what the values make doubtful wherever these weights are measured, one sentence each;
    warn of it.

    Args:
        path: for messages.
        tensors: the 265, torchvision's names.
        folded: the user or the file says that the statistics are folded into scale and shift
            (Caffe's networks).

    Raises:
        CheckpointError: a tensor is not finite, a convolution is all zero, a variance is negative,
            or all are zero.
    """
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError("a tensor is not finite", where=path, seen=name, next=EARLIER)
        if (
            value.dim() == 4 and not value.any()
        ):  # of batch-norm scales zeros are usual: zero-initialised residuals
            raise CheckpointError("a convolution is all zero", where=path, seen=name, next=EARLIER)
        if name.endswith("running_var") and not (value >= 0).all():
            raise CheckpointError(
                "a batch-norm variance is negative", where=path, seen=name, next=EARLIER
            )
    found = _zero_variances(path, tensors)
    if not folded and (text := _untouched(tensors)):
        log.warning(
            "%s: %s; where they are folded into scale and shift (Caffe's ResNet-50, "
            "mmdetection's resnet50_caffe), say "
            "so: harl-bench convert %s --input caffe; otherwise they were lost, and the "
            "features are wrong",
            path.name,
            text,
            path.name,
        )
        found.append(text)
    return found


def untouched(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the batch norms whose statistics are those before training, mean 0 and variance 1:
    bn1, layer1.0.bn1.
    """
    norms = (
        name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")
    )
    return [
        norm
        for norm in norms
        if not tensors[f"{norm}.running_mean"].any()
        and ((tensors[f"{norm}.running_var"] - 1).abs() <= EPS).all()
    ]


def _untouched(tensors: Mapping[str, Tensor]) -> str | None:
    norms = untouched(tensors)
    total = sum(name.endswith(".running_mean") for name in tensors)
    if not norms:
        return None
    stages = ", ".join(
        f"{stage} {n}" for stage, n in Counter(norm.partition(".")[0] for norm in norms).items()
    )
    count = (
        f"all {total} batch norms"
        if len(norms) == total
        else f"{len(norms)} of {total} batch norms ({stages})"
    )
    return f"{count} have mean 0 and variance 1, as before training"


def _zero_variances(path: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Zeros come from half precision, which ends at 6e-8; a dead channel's variance lies below.

    A norm of zeros alone
    may be a dead layer or a lost one: that is said of every number."""
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
    whole = [name for name, value in variances.items() if not value.any()]
    return [f"every variance of {len(whole)} batch norms is 0, such as {whole[0]}"] if whole else []
