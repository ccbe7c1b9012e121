"""Signals in one process and its workers; tests/faults/test_kill.py sends them to every command."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harl_bench.core.errors import DataError, PreemptedError
from harl_bench.core.stopping import KEPT, SIGNALS, Stop, stoppable, terminable

LINES = {
    signal.SIGTERM: "stopped by SIGTERM",
    signal.SIGUSR2: "stopped by SIGUSR2",
    signal.SIGINT: "interrupted",
}
MOMENTS = {
    "at work": "signal.raise_signal(NUMBER)",
    "in an import": "import signalled",
    "in a deletion": "Signalled()",
    "where every exception is caught": """
try:
    signal.raise_signal(NUMBER)
except BaseException:
    pass""",
    "with data workers": """
children = [multiprocessing.Process(target=time.sleep, args=(60,), daemon=True) for _ in range(2)]
for child in children:
    child.start()
os.killpg(0, NUMBER)""",
    "beside a pool": """
with pool(1, [], int) as processes:
    processes.submit(os.getpid).result()
    with stoppable() as stop:
        os.killpg(0, NUMBER)
        print(processes.submit(abs, -3).result(), flush=True)
os.kill(os.getpid(), NUMBER)""",
}
WORK = """
import multiprocessing, os, signal, sys, time
sys.path.insert(0, {folder!r})
from harl_bench.core.stopping import stoppable, terminable
from harl_bench.masks.pool import pool

multiprocessing.set_start_method("fork")
NUMBER = signal.Signals({number:d})

class Signalled:
    def __del__(self):
        signal.raise_signal(NUMBER)

with terminable():
    {moment}
    print("went on")
"""


@pytest.mark.parametrize("number", LINES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_a_command_where_it_is(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    """One line and an exit code in each of these moments; an exception would be lost or changed."""
    (tmp_path / "signalled.py").write_text(f"import signal\nsignal.raise_signal({number:d})\n")
    indented = MOMENTS[moment].replace("\n", "\n    ")
    work = WORK.format(folder=str(tmp_path), number=number, moment=indented)
    process = subprocess.Popen(
        [sys.executable, "-c", work],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=30)  # until no worker holds the pipes
    assert err == f"{LINES[number]}; {KEPT}\n"
    assert process.returncode == (130 if number == signal.SIGINT else 75)
    assert out.split() == (["3"] if moment == "beside a pool" else [])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_loop_stops_when_it_is_ready(number: signal.Signals) -> None:
    with stoppable() as stop:
        stop.raise_if_asked("nothing")
        signal.raise_signal(number)
        assert stop.asked
        interrupted = number == signal.SIGINT
        with pytest.raises(
            KeyboardInterrupt if interrupted else PreemptedError,
            match=None if interrupted else number.name,
        ):
            stop.raise_if_asked("the state is saved")


@pytest.mark.parametrize(
    ("signalled", "error", "expected", "message"),
    [
        (
            True,
            RuntimeError("a worker is killed"),
            PreemptedError,
            "SIGTERM, what was saved before is kept",
        ),
        (True, DataError("no such file"), DataError, "no such file"),
        (False, RuntimeError("a worker is killed"), RuntimeError, "a worker is killed"),
    ],
)
def test_an_error_after_a_signal_is_its_consequence(
    signalled: bool, error: Exception, expected: type[Exception], message: str
) -> None:
    """A scheduler signals every process: a data worker that is just starting dies of it.

    Our own errors say more.
    """

    def work() -> None:
        with stoppable():
            if signalled:
                signal.raise_signal(signal.SIGTERM)
            raise error

    with pytest.raises(expected, match=message):
        work()


@pytest.mark.parametrize("block", [stoppable, terminable])
def test_what_is_ignored_stays_ignored(block: Callable[[], AbstractContextManager[object]]) -> None:
    """A shell's jobs in the background are not meant by Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with block() as stop:
            signal.raise_signal(signal.SIGINT)
        assert not (isinstance(stop, Stop) and stop.asked)
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with terminable(), stoppable():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_interrupt_does_not_wait() -> None:
    with stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_data_worker_that_was_just_forked_leaves_its_parents_signals_alone() -> None:
    with terminable():
        process = os.fork()
        if process == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
