"""Features and labels that a caller of `harl_bench.api` gives, checked before they are used."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harl_bench.core.errors import DataError, UsageError


def features(values: NDArray[np.float32], what: str, device: torch.device) -> Tensor:
    """Return features [N, D] float32 on a device.

    Raises:
        DataError: of another shape, or not finite.
    """
    x = torch.as_tensor(values, dtype=torch.float32, device=device)
    if x.ndim != 2:
        seen = f"shape {list(x.shape)}"
        raise DataError(f"{what} are not one row an image", seen=seen, next="give [N, D]")
    broken = (~x.isfinite()).any(1).nonzero()
    if len(broken):
        seen = f"{len(broken):,} of {len(x):,} rows, first {int(broken[0])}"
        raise DataError(f"{what} are not finite", seen=seen, next="leave those images out")
    return x


def labels(classes: NDArray[np.integer], features: Tensor) -> Tensor:
    """Return the classes [N] int64 of features [N, D], on their device.

    Raises:
        DataError: another number of labels, none, or no integers from 0 on.
    """
    values = np.asarray(classes)
    if values.shape != (len(features),) or not len(values):
        seen = f"labels of shape {list(values.shape)} for {len(features):,} rows"
        raise DataError("labels are not one an image", seen=seen, next="give [N]")
    whole = values.astype(np.int64) if values.dtype.kind in "biuf" else None
    if whole is None or (whole != values).any() or whole.min() < 0:
        what, hint = "labels are not integers from 0 on", "number the classes 0, 1, 2, ..."
        raise DataError(what, seen=f"{values.dtype}, first {values[:3].tolist()}", next=hint)
    return torch.as_tensor(whole, device=features.device)


def require_positive(name: str, value: float) -> None:
    """Raise a UsageError unless a value is positive and finite."""
    if not 0 < value < math.inf:
        raise UsageError(
            f"{name} is not positive and finite", seen=value, next=f"give a {name} above 0"
        )
