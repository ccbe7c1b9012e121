"""Times, memory, and batches that fit."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from benchmarks.gpu_check.setting import Setting

T = TypeVar("T")


class MissingError(Exception):
    """A package that a part needs is not installed."""


def clean() -> None:
    """Forget what the part before compiled, cached and held."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def drained() -> None:
    """Wait for the GPU's queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(
    setting: Setting, call: Callable[[], object], *, warm: int = 3, repeats: int = 6
) -> float:
    """Return the median seconds of a call, the queue drained before and after it."""
    if setting.tiny:
        warm, repeats = 0, 1
    for _ in range(warm):
        call()
    seconds = []
    for _ in range(repeats):
        drained()
        began = time.perf_counter()
        call()
        drained()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def halving(make: Callable[[int], T], batch: int) -> tuple[int, T]:
    """Return (batch, make(batch)), with the batch halved while memory does not suffice."""
    while True:
        try:
            return batch, make(batch)
        except torch.OutOfMemoryError:
            if batch < 4:
                raise
        batch //= 2
        clean()


def speed(batch: int, seconds: float) -> dict[str, float]:
    """Return what the table shows of a step: images a second, milliseconds, a GPU's peak memory."""
    shown = {
        "batch": batch,
        "images_per_s": round(batch / seconds, 2),
        "ms": round(1e3 * seconds, 2),
    }
    if torch.cuda.is_available():
        shown["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return shown
