"""Being asked to stop: SIGTERM and SIGUSR2 (a scheduler preempts), SIGINT (Ctrl-C)."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from harl_bench.core.errors import PreemptedError


@contextmanager
def stop_requested() -> Iterator[list[BaseException]]:
    """A list that fills when a signal asks to stop."""
    asked: list[BaseException] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if asked:  # a second Ctrl-C does not wait for the step to end
                raise KeyboardInterrupt
            asked.append(KeyboardInterrupt())
        else:
            name = signal.Signals(number).name
            asked.append(PreemptedError(f"stopped by {name}; the state is saved", next="give the same command again"))

    handled = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before: dict[int, Any] = {number: signal.signal(number, ask) for number in handled}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
