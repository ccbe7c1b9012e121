"""The training loop of `heads` and `finetune`, resumable at any step, and its evaluation.

Images come in one endless stream: the shuffled rows of epoch 0, then of epoch 1, and so on. Batches
are cut from it without a rest, so that no image is dropped at the end of an epoch. Order and crops
depend on the seed alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.pixels import (
    CenterCrops,
    Crops,
    Transform,
    Unreadable,
    collated,
    normalised,
)
from harl_bench.classify.splits import Rows
from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import Tracker
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.nn import checkpoint
from harl_bench.nn.session import Session

KEEP_EVERY_S = 300.0
LAST = "last.pth"
LOG_EVERY = 20  # steps between the lines of metrics.jsonl
Schedule = Literal["cosine", "steps"]


class Stream:
    """Batch sampler from step `first` to step `last`: lists of (epoch, row)."""

    def __init__(self, rows: Rows, *, batch_size: int, seed: int, first: int, last: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.first, self.last = first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        n, current, order = len(self.rows), -1, self.rows
        for step in range(self.first, self.last):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, i = divmod(position, n)
                if epoch != current:
                    current, generator = epoch, np.random.default_rng((self.seed, epoch))
                    order = self.rows[generator.permutation(n)]
                batch.append((epoch, int(order[i])))
            yield batch


def rate(step: int, steps: int, schedule: Schedule, milestones: tuple[float, ...] = ()) -> float:
    """Return the factor of the learning rate at a step.

    It is a cosine to 0, or a tenth from each milestone on (a fraction of all steps).
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    passed: int = sum(step >= round(milestone * steps) for milestone in milestones)
    return 0.1**passed


def train(
    what: str,
    data: DataSet,
    rows: Rows,
    learn: Callable[[Tensor, Rows], Tensor],
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batch_size: int,
    schedule: Schedule,
    milestones: tuple[float, ...] = (),
    transform: Transform,
    crop_area: tuple[float, float],
    seed: int,
    folder: Path,
    metrics: Path,
    device: torch.device,
    workers: int,
    unreadable: Unreadable,
) -> None:
    """Train a module to the end, resuming from folder/last.pth if it exists.

    Args:
        learn: from pixels [B, 3, S, S] and their rows to the loss.
        module: what is trained and saved, at the end too.
        metrics: metrics.jsonl, with the loss, the fraction of the peak learning rate, images/s and
            the fraction of the time spent waiting for data.

    Raises:
        TrainingError: the loss is not finite.
        UsageError: folder/last.pth is of another run.
        DataError: too many unreadable images.
        PreemptedError: a signal asked to stop; the state is saved.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    about = {
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
        "schedule": schedule,
        "lr": peaks,
        "crop_area": crop_area,
        "data": data.fingerprint[:12],
    }
    first = _resume(folder / LAST, module, optimizer, about)
    if first >= steps:
        return
    loader = DataLoader(
        Crops(data, transform, crop_area, seed),
        batch_sampler=Stream(rows, batch_size=batch_size, seed=seed, first=first, last=steps),
        num_workers=workers,
        collate_fn=collated,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_the_parent,
    )

    def save(step: int) -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.save(folder / LAST, **state, step=step, about=about)

    with Session(what, steps, first=first, save=save, metrics=metrics) as session:
        began = kept = time.monotonic()
        waited_s = 0.0
        batches = iter(loader)
        for step in session:
            good, images, bad = session.next(batches)
            waited_s += session.waited_s
            unreadable.add(bad)
            share = rate(step, steps, schedule, milestones)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            if len(good):
                loss = learn(normalised(images, transform, device), good)
                value = float(loss.detach())
                session.check(value, partial(_not_finite, folder, value, step, steps))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                spent = time.monotonic() - began
                speed = (step + 1 - first) * batch_size / spent
                if step % LOG_EVERY == 0 or step == steps - 1:
                    session.log(
                        loss=value, lr_share=share, pictures_per_s=speed, data_wait=waited_s / spent
                    )
                session.advance(loss=value, waiting=f"{waited_s / spent:.0%}")
            due = time.monotonic() - kept > KEEP_EVERY_S
            session.save(due)
            kept = time.monotonic() if due else kept
        # What comes next is not resumed.
        session.stop.raise_if_asked(f"step {steps} of {steps} is saved")


def _not_finite(folder: Path, value: float, step: int, steps: int) -> TrainingError:
    return TrainingError(
        "the loss is not finite",
        where=folder,
        seen=f"{value} at step {step} of {steps}",
        next="lower the learning rate",
    )


def _resume(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> int:
    """Load the state that `train` saved, if any, and return the step to begin with.

    Raises:
        UsageError: it is of a run with other settings than `about`.
    """
    if not path.exists():
        return 0
    state: dict[str, Any] = checkpoint.load_own(path)
    checkpoint.refuse_another_run(path, state.get("about", {}), about)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def answers(
    what: str,
    data: DataSet,
    rows: Rows,
    model: Callable[[Tensor], Tensor],
    *,
    transform: Transform,
    batch_size: int,
    device: torch.device,
    workers: int,
    unreadable: Unreadable,
) -> tuple[Rows, Tensor]:
    """Return the readable rows in order, and the model's outputs for them on the CPU."""
    loader = DataLoader(
        CenterCrops(data, rows, transform),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collated,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_the_parent,
    )
    readable: list[Rows] = [np.empty(0, np.int64)]
    outputs = []
    with Tracker(what, len(rows), unit="images") as tracker, torch.no_grad():
        for good, images, bad in loader:
            unreadable.add(bad)
            if len(good):
                readable.append(good)
                outputs.append(model(normalised(images, transform, device)).float().cpu())
            tracker.advance(len(good) + len(bad))
    return np.concatenate(readable), torch.cat(outputs) if outputs else torch.empty(0)
