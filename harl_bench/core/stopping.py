"""Being asked to stop: SIGTERM and SIGUSR2 (a scheduler preempts), SIGINT (Ctrl-C)."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

from harl_bench.core.errors import PreemptedError

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
ASK_AGAIN_S = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR2 where no loop has a state to save.

    It ends the work as Ctrl-C does (and, like Ctrl-C, passes every `except Exception` on its way),
    but with exit code 75.
    """


def interruption(number: int) -> KeyboardInterrupt:
    """The exception that a signal is turned into."""
    return (
        KeyboardInterrupt() if number == signal.SIGINT else Terminated(signal.Signals(number).name)
    )


class Stop:
    """`asked` is true from the first signal on; `raise_if_asked` ends the work at a point where
    nothing is lost.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

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
    """Note signals instead of dying from them while the block runs; a second Ctrl-C does not
    wait.
    """
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.asked:
            raise KeyboardInterrupt
        stop.signal = number

    with handled_by(note, SIGNALS):
        yield stop


@contextlib.contextmanager
def terminable(came: list[int]) -> Iterator[None]:
    """Turn signals into `Terminated` and `KeyboardInterrupt`: files being written are cleared away.

    Two moments are no good for an exception, and the signal is put off by ASK_AGAIN_S: an import
        (C++ that imports
    Python ends the process, numpy cannot be loaded twice), and the deletion of an object (Python
    prints the exception and goes on).

    Args:
        came: gets the signals that were raised: libraries may turn the exception into an error of
            their own.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal comes here
        yield
        return
    waiting: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            put_off(number)
            return
        came.append(number)
        raise interruption(number)

    def put_off(number: int) -> None:
        waiting.append(number)
        signal.setitimer(signal.ITIMER_REAL, ASK_AGAIN_S)

    def ask_again(alarm: int, frame: FrameType | None) -> None:
        first = waiting[:1]
        waiting.clear()
        for number in first:
            signal.raise_signal(number)  # to whoever handles it by now

    def dropped(by_python: "sys.UnraisableHookArgs") -> None:
        if isinstance(by_python.exc_value, Terminated):
            put_off(signal.Signals[str(by_python.exc_value)])
        elif isinstance(by_python.exc_value, KeyboardInterrupt):
            put_off(signal.SIGINT)
        else:
            show(by_python)

    show, alarmed = sys.unraisablehook, signal.signal(signal.SIGALRM, ask_again)
    with handled_by(end, SIGNALS):
        sys.unraisablehook = dropped
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = show
            signal.signal(signal.SIGALRM, alarmed)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], None], numbers: Iterable[int]
) -> Iterator[None]:
    """Handle signals while the block runs; those that were ignored before, as Ctrl-C by a shell's
    background jobs, stay so. Outside the main thread, where Python does not let us, do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def leave_signals_to_the_parent(worker: int = 0) -> None:
    """For worker processes, DataLoaders' among them: a scheduler, and Ctrl-C, signal every process
    of a job, and those that bring data must outlive it until the loop has saved its state.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Put signals off while processes start: a pool half started cannot be ended.

    What starts meanwhile never sees them: multiprocessing's helper programs would die of one, and
        so would a worker
    that does not ignore them yet.
    """
    came: list[int] = []
    try:
        with handled_by(lambda number, frame: came.append(number), SIGNALS):
            # of this thread, and what it starts; others still get them
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    finally:
        for number in came:
            signal.raise_signal(number)


def started(loader: Iterable[T]) -> Iterator[T]:
    """The iterator of a DataLoader, whose workers start here."""
    with signals_held():
        return iter(loader)


@contextlib.contextmanager
def pool_starts() -> Iterator[None]:
    """`signals_held` for pools by a fork server."""
    from multiprocessing import resource_tracker

    with signals_held():
        resource_tracker.ensure_running()  # ends by unblocking two of them, so it comes first
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield


def follow_parent() -> None:
    """For processes of a pool: leave signals to the parent and end with it, even when it is killed.

    A pool's processes wait for work from a queue that they themselves hold open, so they would wait
    for ever.
    """
    import multiprocessing

    leave_signals_to_the_parent()
    parent = multiprocessing.parent_process()
    assert parent is not None, "for worker processes only"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
