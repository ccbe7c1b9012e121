"""Signals that ask a command to stop: a scheduler's SIGTERM and SIGUSR2, SIGINT (Ctrl-C)."""

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from harl_bench.core.errors import INTERRUPTED, PREEMPTED, BenchError, PreemptedError

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
KEPT = "what was finished is kept; next: give the same command again to go on"
SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """`asked` is true from the first signal on; `raise_if_asked` ends the work where it may."""

    signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def raise_if_asked(self, state: str) -> None:
        """End the work.

        Args:
            state: what is saved, for the message.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            PreemptedError: after SIGTERM or SIGUSR2 (exit code 75).
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise PreemptedError(f"stopped by {name}, {state}", next="give the same command again")


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Note signals while a loop runs that saves its state and stops; a second Ctrl-C does not wait
    for it.

    An error after a signal is taken for its consequence: schedulers signal every process of a job,
    and a data worker that is just starting dies of it.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.asked:
            raise KeyboardInterrupt
        stop.signal = number

    with handled_by(note):
        try:
            yield stop
        except Exception as error:
            if not isinstance(error, BenchError):
                stop.raise_if_asked("what was saved before is kept")
            raise


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """End the process where it is when a signal comes: one line, exit code 75 (Ctrl-C: 130), no
    worker left.

    This is as safe as being killed, which loses nothing at any moment (tests/faults/test_kill.py).
    An exception could come in the middle of an import or of a deletion, which lose it or break.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a data worker that was just forked
            return
        with contextlib.suppress(Exception):  # the signal may have come in the middle of a print
            # Progress bars hide the cursor.
            print(end=SHOW_CURSOR if sys.stdout.isatty() else "", flush=True)
        interrupted = number == signal.SIGINT
        cause = "interrupted" if interrupted else f"stopped by {signal.Signals(number).name}"
        os.write(2, f"{cause}; {KEPT}\n".encode())
        for child in multiprocessing.active_children():
            kill(child)
        os._exit(INTERRUPTED if interrupted else PREEMPTED)

    with handled_by(end):
        yield


def kill(child: multiprocessing.process.BaseProcess) -> None:
    """Kill a child process; its own `kill` is missing from joblib's."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> Iterator[None]:
    """Handle SIGNALS while the block runs, except those that are ignored already.

    A shell's background jobs ignore Ctrl-C. Python lets only the main thread do so: in another one,
    do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def leave_signals_to_the_parent(worker: int = 0) -> None:
    """Ignore signals in a data worker (a DataLoader's `worker_init_fn`).

    Every process of a job gets them, and the loop needs its workers until it has saved its state.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
