"""Commands of ours as processes: their output goes to the terminal or a log, signals reach each of
them once.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from harl_bench.core.stopping import handled_by

HARL_BENCH = (
    sys.executable,
    "-P",
    "-m",
    "harl_bench.cli",
)  # -P: a pretrain.py in the working folder is not ours


class Ending(NamedTuple):
    """How a command ended: exit code (negative: killed by that signal) and the last line it wrote
    to standard error.
    """

    code: int
    last_line: str


class Processes:
    """The commands under way. `came` is the last signal that was passed on to them, if any."""

    def __init__(self) -> None:
        self.came: int | None = None
        self._told: set[int] = set()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(
        self,
        arguments: Sequence[str],
        *,
        gpus: Sequence[str] | None = None,
        log: Path | None = None,
    ) -> Ending:
        """Run a command to its end; None is started after a signal came.

        It has a process group of its own: Ctrl-C then comes once, from here, and not a second time
            from the terminal,
        which training takes for "do not even save".

        Args:
            gpus: the devices it sees; None leaves what this process sees.
            log: a file for all its output, which otherwise goes to the terminal.
        """
        sys.stdout.flush()
        environment = os.environ | (
            {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        )
        last = ""
        with contextlib.ExitStack() as stack:
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
            target = stack.enter_context(open(log, "ab")) if log else None
            with self._lock:
                if self.came is not None:
                    return Ending(-self.came, "")
                process = subprocess.Popen(
                    [*HARL_BENCH, *arguments],
                    stdout=target,
                    stderr=subprocess.PIPE,
                    process_group=0,
                    env=environment,
                )
                self._live.add(process)
                if (
                    self.came is not None and process.pid not in self._told
                ):  # between the question above and here
                    process.send_signal(self.came)
            stack.enter_context(process)
            assert process.stderr is not None, "asked for a pipe"
            for raw in process.stderr:
                if target is None:
                    sys.stderr.write(raw.decode("utf-8", "replace"))
                    sys.stderr.flush()
                else:
                    target.write(raw)
                    target.flush()
                last = raw.decode("utf-8", "replace").strip() or last
            process.wait()
        with self._lock:
            self._live.discard(process)
        return Ending(process.returncode, last)

    def stop(self, number: int) -> None:
        """Pass a signal on to every command under way; no other is started."""
        self.came = number
        for process in list(self._live):
            self._told.add(process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def wait(self) -> None:
        """Until every command under way has ended."""
        for process in list(self._live):
            process.wait()

    @contextlib.contextmanager
    def forwarding(self) -> Iterator[None]:
        """Pass on Ctrl-C and a scheduler's signals while the block runs."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            self.stop(number)

        with handled_by(pass_on):
            yield
