"""Processes that we start ourselves, or lead where a launcher started them, on one function."""

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

import torch.distributed as dist

from harl_bench.core.errors import (
    INTERRUPTED,
    BenchError,
    InternalError,
    MachineError,
    PreemptedError,
    explained,
)
from harl_bench.core.stopping import SIGNALS
from harl_bench.nn.alarm import AGAIN, DIED
from harl_bench.nn.distributed import is_main, joined, under_launcher, world_size

T = TypeVar("T")
START = "spawn"  # with CUDA nothing else works; tests fork
STOP_S = 120  # how long they may take to save
# Of those that follow: the first one may solve or train alone for long.
FOLLOWING = timedelta(days=30)


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
            start_method=START,
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
    raise MachineError(DIED, seen=seen, next=AGAIN)


def lead(function: Callable[..., T], processes: int, *arguments: Any) -> T:
    """`launch`, in which the processes that `follow` take part instead where a launcher started
    them; function and arguments travel to them by pickle.
    """
    if world_size() > 1:
        dist.broadcast_object_list([(function, arguments)], src=0)
        return function(*arguments)
    return launch(function, processes, *arguments)


@contextlib.contextmanager
def leading() -> Iterator[bool]:
    """Yield whether this process of a launcher leads; the others have followed until its end."""
    with joined(FOLLOWING):
        if is_main():
            yield True
            dist.broadcast_object_list([None], src=0)
        else:
            _follow()
            yield False


def _follow() -> None:
    """Do what the first process calls for, until it has ended."""
    while True:
        call: list[Any] = [None]
        dist.broadcast_object_list(call, src=0)
        if call[0] is None:
            return
        function, arguments = call[0]
        function(*arguments)


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
    try:
        # Noted inside too: before the others lose their partner, and fail of that.
        with _noted(Path(notes)), joined(speaks=False), _noted(Path(notes)):
            return function(*arguments)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BenchError as error:
        raise SystemExit(error.exit_code) from None  # the note says it all
    raise AssertionError("either it returned or it raised")


@contextlib.contextmanager
def _noted(notes: Path) -> Iterator[None]:
    """Leave a note of the first error that ends the block."""
    try:
        yield
    except Exception as error:
        known, note = explained(error), notes / f"{os.environ['RANK']}.error"
        if not note.exists():
            known.add_note(traceback.format_exc())  # which --debug shows
            note.write_bytes(pickle.dumps(known))
        raise known from None
