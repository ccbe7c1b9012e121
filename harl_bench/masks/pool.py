"""A pool of processes that make masks or features: deaf to signals, and ended with this process."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from typing import Any

from harl_bench.core.errors import MachineError
from harl_bench.core.stopping import handled_by


@contextlib.contextmanager
def pool(
    workers: int, preload: Sequence[str], start: Callable[..., None], *arguments: Any
) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Open a pool whose processes begin with `start(*arguments)`.

    At the end, what still waits is canceled.

    Args:
        preload: modules that are imported once for all of them.

    Raises:
        MachineError: one of them was killed.
    """
    # fork is not safe beside threads, spawn imports all anew
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload])
    # inherited by the server, its processes, and multiprocessing's own helper
    with handled_by(signal.SIG_IGN):
        forkserver.ensure_running()
    executor = concurrent.futures.ProcessPoolExecutor(workers, context, _begin, (start, arguments))
    try:
        yield executor
    except concurrent.futures.process.BrokenProcessPool:
        raise MachineError(
            "a process that made masks was killed",
            seen="most often: not enough memory",
            next="use fewer --workers",
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "for the pool's processes only"

    def follow() -> None:  # a process that waits for work would outlive a parent that is killed
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    start(*arguments)
