"""Being asked to stop: SIGTERM and SIGUSR2 (a scheduler preempts), SIGINT (Ctrl-C)."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from harl_bench.core.errors import PreemptedError


class Stop:
    """`asked` is true from the first signal on; `raise_if_asked` ends the work at a point where nothing is lost."""

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
    """Note signals instead of dying from them while the block runs; a second Ctrl-C does not wait."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.asked:
            raise KeyboardInterrupt
        stop.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python lets only the main thread handle signals
        return
    handled = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before: dict[int, Any] = {number: signal.signal(number, note) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
