"""Signals as exceptions and as notes, inside one process; tests/faults/test_kill.py sends them to
every command.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harl_bench.core import stopping
from harl_bench.core.stopping import (
    SIGNALS,
    Stop,
    Terminated,
    signals_held,
    started,
    stoppable,
    terminable,
)


class Signalled:
    """An object that is being deleted when the signal comes, as a DataLoader's iterator that joins
    its workers is.
    """

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that is put off comes again only when the test is ready for it, on a busy machine
    too.
    """
    monkeypatch.setattr(stopping, "ASK_AGAIN_S", 1.5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_schedulers_signal_ends_the_work(number: signal.Signals) -> None:
    came: list[int] = []
    with pytest.raises(Terminated, match=number.name), terminable(came):
        signal.raise_signal(number)
    assert came == [number]


def test_an_import_is_finished_before_a_signal_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the middle of one may end the process (C++ that imports Python) or leave half
    a library.
    """
    (tmp_path / "slow_import.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.2)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imported = []

    def work() -> None:
        import slow_import  # type: ignore[import-not-found]

        imported.append(slow_import.done)
        time.sleep(10)

    with pytest.raises(Terminated), terminable([]):
        work()
    assert imported == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_during_a_deletion_is_not_lost(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python prints what a deletion raises and goes on; ours says nothing and ends the work a
    moment later.
    """
    passed = []

    def work() -> None:
        Signalled(number)
        passed.append(True)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), terminable([]):
        work()
    assert passed
    assert capfd.readouterr().err == ""


def test_a_signal_during_a_deletion_reaches_the_loop_that_follows() -> None:
    with terminable([]):
        Signalled(signal.SIGTERM)
        with stoppable() as stop:
            while not stop.asked:
                time.sleep(0.02)
    assert stop.signal == signal.SIGTERM


def test_a_repeat_does_not_outlive_the_work() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable([]):
        Signalled(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    time.sleep(1.8)  # the process would die of it here


def test_other_mistakes_in_a_deletion_are_still_shown() -> None:
    class Wrong:
        def __del__(self) -> None:
            raise ValueError("a mistake")

    shown: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda dropped: shown.append(dropped.exc_value)
    try:
        with terminable([]):
            Wrong()
    finally:
        sys.unraisablehook = before
    assert [str(error) for error in shown] == ["a mistake"]


def test_a_held_signal_comes_afterwards() -> None:
    with stoppable() as stop:
        with signals_held():
            signal.raise_signal(signal.SIGUSR2)
            assert not stop.asked
        assert stop.signal == signal.SIGUSR2


def test_what_starts_meanwhile_sees_no_signal() -> None:
    """The server of multiprocessing's pools, sent every signal in its first moments, lives and
    starts a process.
    """
    work = """
import multiprocessing, os
from multiprocessing.forkserver import _forkserver
from harl_bench.core.stopping import SIGNALS, pool_starts

with pool_starts():
    _forkserver.ensure_running()
    first = _forkserver._forkserver_pid
    for number in SIGNALS:
        os.killpg(0, number)
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()
    print(process.exitcode, first == _forkserver._forkserver_pid, flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", work], start_new_session=True, capture_output=True, text=True
    )
    assert ended.stdout == "0 True\n", ended.stderr
    assert -ended.returncode in SIGNALS  # afterwards it got what was held


def test_a_held_signal_is_not_lost_to_a_failure() -> None:
    """Preempted while its workers could not start: the scheduler's signal decides."""

    def fail() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise OSError("no more processes")

    with stoppable() as stop:
        with pytest.raises(OSError, match="no more processes"), signals_held():
            fail()
        assert stop.signal == signal.SIGTERM


def test_workers_never_see_a_signal_that_comes_while_they_start() -> None:
    """Each is forked with the signals blocked, and ignores them once it runs."""

    class Loader:
        def __iter__(self) -> Iterator[bool]:
            os.kill(os.getpid(), signal.SIGTERM)
            return iter([signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])])

    with stoppable() as stop:
        assert list(started(Loader())) == [True]
        assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize("block", [stoppable, signals_held, lambda: terminable([])])
def test_what_is_ignored_stays_ignored(block: Callable[[], AbstractContextManager[object]]) -> None:
    """A shell's jobs in the background are not meant by Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with block() as stop:
            signal.raise_signal(signal.SIGINT)
        assert not (isinstance(stop, Stop) and stop.asked)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_interrupt_does_not_wait() -> None:
    with stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
