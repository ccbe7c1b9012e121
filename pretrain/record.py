"""What a run tells: metrics.jsonl, TensorBoard, warnings of collapse, expectations not met."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harl_bench.core.progress import MetricsFile, log
from harl_bench.nn import distributed

COLLAPSED = 0.1  # of the 1/sqrt(D) that directions spread evenly over the sphere have


class Record:
    """Written by the first process only.

    Args:
        out: the run's folder.
        resume_step: rows of this step and later are dropped.
        tensorboard: also write out/tensorboard.
        dim: D, width of the projections whose collapse is watched.
    """

    def __init__(self, out: Path, *, resume_step: int, tensorboard: bool, dim: int) -> None:
        main = distributed.is_main()
        self.metrics = MetricsFile(out / "metrics.jsonl", resume_step=resume_step) if main else None
        self.board = _board(out / "tensorboard", resume_step) if main and tensorboard else None
        self.dim, self.collapsed = dim, False

    def write(self, step: int, **numbers: float) -> None:
        """One row, on every board."""
        if self.metrics:
            self.metrics.append(step=step, **numbers)
        if self.board:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)
        self._watch(step, numbers)

    def _watch(self, step: int, numbers: Mapping[str, float]) -> None:
        """Say so, once, when all projections point the same way; and when they spread again."""
        spread = numbers.get("feature_std", 1.0) * math.sqrt(self.dim)
        if self.metrics and (spread < COLLAPSED) != self.collapsed:
            self.collapsed = not self.collapsed
            if self.collapsed:
                log.warning(
                    "step %d: the projections collapse: their spread is %.3f of an even one; "
                    "lower base_lr?",
                    step,
                    spread,
                )
            else:
                log.info("step %d: the projections spread again, %.3f of an even one", step, spread)

    def close(self) -> None:
        """Flush."""
        if self.board:
            self.board.close()


def _board(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning(
            "no TensorBoard files: the package tensorboard is not installed; metrics.jsonl has "
            "the numbers"
        )
        return None
    return SummaryWriter(str(folder), purge_step=resume_step or None)  # type: ignore[no-untyped-call]


def judge(expect: Mapping[str, tuple[float, float]], numbers: Mapping[str, float]) -> list[str]:
    """The expectations of a recipe that its last numbers do not meet, in words."""
    missed = []
    for name, (low, high) in expect.items():
        value = numbers.get(name, math.nan)
        if not low <= value <= high:
            missed.append(f"{name} is {value:.4g}, expected {low:g} to {high:g}")
    return missed
