"""A command of harl-bench as a process, whose output goes to the terminal or a log."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from harl_bench.core.errors import INTERRUPTED, PREEMPTED
from harl_bench.core.stopping import Stop, stoppable

# -P: a pretrain.py in the working folder is not ours
HARL_BENCH = (sys.executable, "-P", "-m", "harl_bench.cli")
POLL_S = 0.05


class Process(subprocess.Popen[str]):
    """A command under way: its GPUs, when it began, and the last signal that was passed on to it.

    It has a process group of its own: Ctrl-C then comes once, from here, and not a second time from
    the terminal, which training takes for "do not even save".

    Args:
        gpus: the devices it sees; None leaves what this process sees.
        log: a file for all its output, which otherwise goes to the terminal.
    """

    def __init__(
        self, arguments: Sequence[str], gpus: Sequence[str] | None = None, log: Path | None = None
    ) -> None:
        sys.stdout.flush()
        self.signal: int | None = None
        self.gpus, self.began = tuple(gpus or ()), time.monotonic()
        self._output, self._last_line = sys.stderr, ""
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._output = open(log, "a", encoding="utf-8")  # noqa: SIM115 the reader closes it
        super().__init__(
            [*HARL_BENCH, *arguments],
            stdout=self._output if log else None,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
            env=os.environ | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)  # ends with the command
        self._reader.start()

    def _read(self) -> None:
        assert self.stderr is not None, "a pipe"
        for line in self.stderr:
            self._output.write(line)
            self._output.flush()
            self._last_line = line.strip() or self._last_line
        self.wait()
        if self._output is not sys.stderr:
            self._output.close()

    @property
    def alive(self) -> bool:
        """True until it has ended and its last words are read."""
        return self._reader.is_alive()

    def finish(self) -> int:
        """Wait for its end and return its exit code."""
        self._reader.join()
        return self.returncode

    @property
    def cause(self) -> str:
        """The signal that killed it, or the last line of its standard error."""
        if self.returncode < 0:
            name = signal.Signals(-self.returncode).name
            return f"killed by {name}" + (": memory?" if name == "SIGKILL" else "")
        return self._last_line or f"exit code {self.returncode}, no message"

    def stop(self, number: int) -> None:
        """Pass a signal on."""
        self.signal = number
        self.send_signal(number)


def ended(processes: Sequence[Process], stop: Stop) -> list[Process]:
    """Wait until one of them has ended, and return those that have.

    A signal that came is passed on to all. Where one was stopped by another signal, all stop.
    """
    try:
        while not (done := [process for process in processes if not process.alive]):
            for process in processes:
                if stop.signal is not None and process.signal is None:
                    process.stop(stop.signal)
            time.sleep(POLL_S)
    except KeyboardInterrupt:  # the second Ctrl-C
        for process in processes:
            process.stop(signal.SIGINT)
        raise
    if any(process.returncode in (INTERRUPTED, -signal.SIGINT) for process in done):
        stop.signal = signal.SIGINT
    elif any(process.returncode == PREEMPTED for process in done):
        stop.signal = stop.signal or signal.SIGTERM
    return done


def run(
    arguments: Sequence[str], gpus: Sequence[str] | None = None, log: Path | None = None
) -> Process:
    """Run one command to its end.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal stopped it.
    """
    with stoppable() as stop:
        (process,) = ended([Process(arguments, gpus, log)], stop)
        stop.raise_if_asked("the suite's state is saved")
    return process
