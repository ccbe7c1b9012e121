"""An error of one process ends all of them, with one line and one exit code.

A process that waits for another one in a collective hears of nothing. So an error is left in the
store where the processes met; in each of them a thread looks for it, and ends its process if that
has not ended by itself soon after. This is as safe as being killed (core/stopping.py).
"""

import contextlib
import json
import logging
import multiprocessing
import os
import sys
import threading
import time

from torch.distributed.distributed_c10d import Store

from harl_bench.core import errors
from harl_bench.core.errors import BenchError, MachineError, explained
from harl_bench.core.progress import log

EVERY_S = 0.5  # between two looks
HEARD_S = 5.0  # within which the others have heard of an error, if they are alive
GRACE_S = 5.0  # within which a process ends that raised the same error, or lost its partner
LEAVING_S = 60.0  # within which the others come to the end of the work, too
ERROR = "error"
DIED, AGAIN = "a process of the run died", "give the same command again; is memory short?"
LOST = "Connection closed by peer"
KINDS = {
    error.kind: error
    for error in reversed(list(vars(errors).values()))
    if isinstance(error, type) and issubclass(error, BenchError)
}


def written(error: BenchError) -> str:
    """Return an error as text."""
    parts = (error.where, error.seen, error.next)
    texts = [None if part is None else str(part) for part in parts]
    return json.dumps([error.kind, error.what, *texts])


def read(text: str) -> BenchError:
    """Return the error of `written`: of its kind, with the same line and exit code."""
    kind, what, where, seen, next = json.loads(text)
    return KINDS.get(kind, BenchError)(what, where=where, seen=seen, next=next)


class Alarm:
    """The watch of one process of `world` over the others, until `close`.

    Args:
        speaks: whether nobody else prints the error. The first process then does so, or another one
            that finds it gone.
    """

    def __init__(self, store: Store, rank: int, world: int, *, speaks: bool) -> None:
        self.store, self.rank, self.world, self.speaks = store, rank, world, speaks
        self.first: BenchError | None = None  # of all processes
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def raised(self, error: Exception) -> Exception:
        """Tell the others; return what ended the run: their error if that came first."""
        if LOST in str(error):  # of gloo, which does not know why
            error = MachineError(DIED, next=AGAIN)
        mine = written(explained(error))
        with contextlib.suppress(RuntimeError):  # the store is gone with the first process
            first = self.store.compare_set(ERROR, "", mine).decode()
            self._wait("heard", HEARD_S)
            if first != mine:
                error = read(first)
            if self.rank and self.store.check(["heard/0"]):
                error.printed = True  # type: ignore[attr-defined]
        return error

    def leave(self) -> None:
        """Come to the end of the work; the first process goes last, for it may hold the store.

        Raises:
            BenchError: another process's error.
        """
        with contextlib.suppress(RuntimeError):
            self.store.set(f"left/{self.rank}", "")
            if self.rank == 0:
                self._wait("left", LEAVING_S)
        if self.first:
            raise self.first

    def close(self) -> None:
        """End the watch."""
        self._closed.set()

    def _wait(self, what: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        every = [f"{what}/{rank}" for rank in range(self.world)]
        while not self.store.check(every) and time.monotonic() < until:
            if what == "left" and self.first:
                return
            time.sleep(0.05)

    def _watch(self) -> None:
        try:
            while not self.store.check([ERROR]):
                if self._closed.wait(EVERY_S):
                    return
            self.first = read(self.store.get(ERROR).decode())
            self.store.set(f"heard/{self.rank}", "")
        except RuntimeError:
            self.first = self.first or MachineError(DIED, next=AGAIN)
        if not self._closed.wait(GRACE_S):
            self._end(self.first)

    def _end(self, error: BenchError) -> None:
        """End the process where it is."""
        for handler in log.handlers:
            if isinstance(handler, logging.FileHandler):  # a run's log.txt
                handler.emit(log.makeRecord(log.name, logging.ERROR, "", 0, error.line(), (), None))
        if self.speaks and (self.rank == 0 or error.what == DIED):
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), f"{error.line()}\n".encode())
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(error.exit_code)
