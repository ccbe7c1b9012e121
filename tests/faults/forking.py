"""harl-bench whose suites fork their commands off themselves.

They need not import all again; to the suite they are processes like any other.
"""

import functools
import gc
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing import util
from typing import Any

import numpy as np

from harl_bench.core.stopping import SIGNALS
from harl_bench.suite.process import HARL_BENCH

start = subprocess.Popen.__init__


def forking(process: "subprocess.Popen[str]", command: list[str], **options: Any) -> None:
    if tuple(command[: len(HARL_BENCH)]) == HARL_BENCH:
        arguments = command[len(HARL_BENCH) :]
        options["preexec_fn"] = functools.partial(become, arguments, options["env"])
    start(process, command, **options)


def become(arguments: list[str], environment: dict[str, str]) -> None:
    """Be the command, instead of executing a program that is."""
    os.closerange(3, 256)  # one of them tells the suite that the program has started
    gc.enable()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()
    sys.argv[1:] = arguments
    sys.modules.pop("harl_bench.cli")  # else runpy warns
    code: Any = 1
    try:
        runpy.run_module("harl_bench.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    finally:
        util._exit_function()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    subprocess.Popen.__init__ = forking  # type: ignore[method-assign]
    runpy.run_module("harl_bench.cli", run_name="__main__", alter_sys=True)
