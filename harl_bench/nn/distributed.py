"""Several processes on one task, and the few things they tell each other.

No-ops in one process.

Processes come from `launching.launch` (torch.distributed.run's own agent, started in process), or
the command itself was started once per GPU by torchrun or a cluster's launcher, which set RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT; `joined` is then all there is to do.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from harl_bench.core.errors import BenchError, UsageError
from harl_bench.core.progress import set_up_logging
from harl_bench.nn.alarm import Alarm

T = TypeVar("T")
# With a process that is behind: it may still evaluate, or its images are larger.
PATIENCE = timedelta(hours=1)


def rank() -> int:
    """Number of this process, 0 in a single one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and talks to the user."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """Every process's value on every process, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_process(flag: bool) -> bool:
    """Whether any process says yes; all get the same answer, so all can stop at the same step."""
    (answer,) = any_process_each(flag)
    return answer


def any_process_each(*flags: bool) -> list[bool]:
    """Whether any process says yes to each of several questions, in one message."""
    if world_size() == 1:
        return list(flags)
    answers = torch.tensor([float(flag) for flag in flags], device=_device())
    dist.all_reduce(answers, op=dist.ReduceOp.MAX)
    return [bool(answer) for answer in answers.tolist()]


@contextlib.contextmanager
def failing_together(before: Callable[[], None] | None = None) -> Iterator[None]:
    """Raise any process's error of this block in all of them, so that none waits for another.

    Args:
        before: what every process does before it raises.
    """
    error: BenchError | None = None
    try:
        yield
    except BenchError as raised:
        error = raised
    if any_process(error is not None):
        if before:
            before()
        raise first_error(error)


def first_error(error: BenchError | None) -> BenchError:
    """Return the same error in all processes, of which one has one at least."""
    return next(e for e in gather(error) if e is not None)


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def averaged(module: nn.Module, **options: Any) -> DistributedDataParallel:
    """Return a module whose gradients are averaged over processes.

    Norm statistics stay with each process.

    Args:
        options: of DistributedDataParallel.
    """
    with warnings.catch_warnings():  # broadcast_buffers has a new name from torch 2.14 on
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(module, broadcast_buffers=False, **options)


def under_launcher() -> bool:
    """Whether torchrun or a cluster started several of us."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def processes_here() -> int:
    """How many of us a launcher started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def devices(gpus: int | None) -> tuple[int, str]:
    """Return (processes, "cuda" or "cpu") of a run with --gpus.

    Raises:
        UsageError: fewer GPUs are visible than asked for.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if under_launcher():
        return world_size(), "cuda" if visible and gpus != 0 else "cpu"
    count = visible if gpus is None else gpus
    if count > visible:
        hint = "--gpus 0 computes on the CPU"
        raise UsageError(f"--gpus {gpus}, but {visible} are visible", next=hint)
    return max(1, count), "cuda" if count else "cpu"


@contextlib.contextmanager
def joined(patience: timedelta = PATIENCE, *, speaks: bool = True) -> Iterator[None]:
    """Be one of the processes a launcher started while the block runs: NCCL for tensors on GPUs
    where each process of this machine has one (all decide alike), gloo for what is on the CPU,
    objects and flags among it. An error of one process ends all.

    Args:
        patience: how long a process waits for the others.
        speaks: whether one of the processes prints the error, and not who started them.
    """
    if not under_launcher() or dist.is_initialized():
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    visible = torch.cuda.device_count()
    gpus = visible > 0 and visible >= processes_here()
    if gpus:
        # A cluster may show each process its own GPU only.
        torch.cuda.set_device(local if local < visible else 0)
    store, rank, world = next(rendezvous("env://", timeout=patience))
    store.set_timeout(patience)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=PrefixStore("processes", store),
        rank=rank,
        world_size=world,
        timeout=patience,
    )
    alarm = Alarm(PrefixStore("alarm", store), rank, world, speaks=speaks)
    if rank > 0:  # the first process speaks for all, and each one warns
        set_up_logging(quiet=True)
    try:
        yield
        alarm.leave()
    except Exception as error:
        first = alarm.raised(error)
        if first is error:
            raise
        raise first from None
    finally:
        dist.destroy_process_group()
        alarm.close()


def _device() -> torch.device:
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
