"""Several processes on one task: launching them, and the few things they tell each other.

No-ops in one process.

Processes come from `launch` (torch.distributed.run's own agent, started in process), or the command
itself was started once per GPU by torchrun or a cluster's launcher, which set RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT; `joined` is then all there is to do.
"""

import contextlib
import logging
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from harl_bench.core.errors import (
    INTERRUPTED,
    BenchError,
    InternalError,
    MachineError,
    PreemptedError,
    UsageError,
    explained,
)
from harl_bench.core.stopping import SIGNALS

T = TypeVar("T")
STOP_S = 120  # how long they may take to save
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
    if world_size() == 1:
        return flag
    answer = torch.tensor([float(flag)], device=_device())
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer.item())


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
        raise next(e for e in gather(error) if e is not None)


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


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
        return world_size(), "cuda" if visible else "cpu"
    count = visible if gpus is None else gpus
    if count > visible:
        hint = "--gpus 0 computes on the CPU"
        raise UsageError(f"--gpus {gpus}, but {visible} are visible", next=hint)
    return max(1, count), "cuda" if count else "cpu"


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes a launcher started while the block runs: NCCL for tensors on GPUs
    where each process of this machine has one (all decide alike), gloo for what is on the CPU,
    objects and flags among it.
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
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def launch(function: Callable[..., T], processes: int, *arguments: Any) -> T:
    """Call `function(*arguments)` in `processes` processes of this machine; the first one's value
    comes back.

    Args:
        function: of a module's top level, as the arguments are, it travels by pickle.

    Raises:
        BenchError: what a process raised, as it was.
        MachineError: a process died without a word.
    """
    if processes <= 1 or under_launcher():
        with joined():
            return function(*arguments)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Our own line says what torch's would.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # The agent hands signals on to the processes, which save and stop.
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number.name for number, handler in handlers.items() if handler is not signal.SIG_IGN]
    known = LaunchConfig.__dataclass_fields__
    # torch 2.11 waits 30 s for them, and has no such key.
    patience: dict[str, Any] = {"shutdown_timeout": STOP_S} if "shutdown_timeout" in known else {}
    with tempfile.TemporaryDirectory(prefix="harl-bench-") as notes:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            run_id="harl-bench",
            max_restarts=0,
            monitor_interval=0.5,
            start_method="spawn",
            signals_to_handle=",".join(heeded),
            **patience,
        )
        try:
            values: dict[int, T] = elastic_launch(config, _process)(function, notes, arguments)
            return values[0]
        except ChildFailedError as failed:
            _raise_noted(Path(notes))
            rank, failure = failed.get_first_failure()
            seen = f"process {rank}, exit code {failure.exitcode}"
        except SignalException as stopped:
            if stopped.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            _raise_noted(Path(notes))
            name = signal.Signals(stopped.sigval).name
            raise PreemptedError(
                f"stopped by {name}, what was finished is kept", next="give the same command again"
            ) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    raise MachineError(
        "a process of the run died", seen=seen, next="give the same command again; is memory short?"
    )


def _raise_noted(notes: Path) -> None:
    """Raise what a process raised, if it left a note.

    The first one's, but before all others one that has a remedy: processes whose partner is gone
    fail, too.
    """
    errors = [
        pickle.loads(note.read_bytes())
        for note in sorted(notes.glob("*.error"), key=os.path.getmtime)
    ]
    for error in sorted(errors, key=lambda error: isinstance(error, InternalError)):
        raise error from None


def _process(function: Callable[..., T], notes: str, arguments: tuple[Any, ...]) -> T:
    from harl_bench.core.progress import set_up_logging

    set_up_logging(quiet=int(os.environ["RANK"]) > 0)
    # Noted inside too: before the others lose their partner, and fail of that.
    with _noted(Path(notes)), joined(), _noted(Path(notes)):
        return function(*arguments)
    raise AssertionError("either it returned or it raised")


@contextlib.contextmanager
def _noted(notes: Path) -> Iterator[None]:
    """Leave a note of what ends the block, and end the process."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        known = explained(error)
        known.add_note(traceback.format_exc())  # which --debug shows
        (notes / f"{os.environ['RANK']}.error").write_bytes(pickle.dumps(known))
        raise SystemExit(known.exit_code) from None  # the note says it all


def _device() -> torch.device:
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
