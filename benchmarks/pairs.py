"""Two implementations timed in turn in one run."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from harl_bench.nn.runtime import seed_everything


def compare(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rival: str,
    repeats: int,
    device: str,
) -> None:
    """Time the two (A B, B A, ...) after one warm-up each; print the medians of seconds and ratios.

    Seconds are the CPU's, or the clock's on a GPU. Both are seeded alike before each call: they
    sample the same.
    """
    works = (ours, theirs)
    timed = cpu_seconds if device == "cpu" else partial(seconds, device=device)
    times: list[tuple[float, float]] = []
    for repeat in range(repeats + 1):
        taken = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            seed_everything(repeat)
            taken[which] = timed(works[which])
        if repeat:
            times.append((taken[0], taken[1]))
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    unit = "CPU s" if device == "cpu" else "s"
    print(f"{what}: ours {first:.3f} {unit}, {rival} {second:.3f}, ratio {ratio:.3f}", flush=True)


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall time of one call, the device's queue drained."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU's time of one call over all threads, which other processes do not lengthen."""
    began = time.process_time()
    work()
    return time.process_time() - began
