"""A command of ours as a process: its output goes to the terminal as it comes, signals reach it once."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

HARL_BENCH = (sys.executable, "-m", "harl_bench.cli")


class Ending(NamedTuple):
    """How a command ended: exit code (negative: killed by that signal), the last line it wrote to standard error, and
    the signal that came meanwhile, if any."""

    code: int
    last_line: str
    signal: int | None


def run(arguments: Sequence[str]) -> Ending:
    """Run it to its end.

    It has a process group of its own: Ctrl-C then comes once, from here, and not a second time from the terminal,
    which training takes for "do not even save".
    """
    sys.stdout.flush()
    last = ""
    with (
        subprocess.Popen([*HARL_BENCH, *arguments], stderr=subprocess.PIPE, process_group=0) as process,
        _forwarding(process) as came,
    ):
        assert process.stderr is not None, "asked for a pipe"
        for raw in process.stderr:
            text = raw.decode("utf-8", "replace")
            sys.stderr.write(text)
            sys.stderr.flush()
            last = text.strip() or last
    return Ending(process.returncode, last, came[0] if came else None)


@contextlib.contextmanager
def _forwarding(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Pass on Ctrl-C and a scheduler's signals while the block runs, and list them."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield came  # Python lets only the main thread handle signals
        return
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before: dict[int, Any] = {number: signal.signal(number, pass_on) for number in handled}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
