"""SIGKILL, SIGTERM, SIGUSR2, Ctrl-C at random moments, then the same command again.

It ends with what an undisturbed one leaves.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.faults import FULL
from tests.faults.commands import CASES, Calm, finish, masks, start
from tests.masks import mask_scenes as scenes

pytestmark = pytest.mark.slow
KILLS, STOPS = (30, 3) if FULL else (2, 1)  # of each command
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


def whole(out: Path) -> None:
    """Nothing that carries its final name is half written."""
    for path in out.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json" and not path.is_symlink():
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix in (".pth", ".pkl"):
            torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm], name: str
) -> None:
    case, broken, log = CASES[name], tmp_path / "broken", tmp_path / "log.txt"
    expected, length = calm(name)
    random = np.random.default_rng([sum(name.encode()), KILLS])
    for number in range(KILLS):
        process = start(case.command(root, broken), log)
        try:
            code = process.wait(timeout=float(random.uniform(0.25, 1.0)) * length)
        except subprocess.TimeoutExpired:
            kill_all(process.pid)
            process.wait()
        else:
            assert code == 0, log.read_text()[-3000:]
            if FULL:  # it had got to the end: once more from nothing
                broken.rename(ended := tmp_path / f"ended{number}")
                assert case.outcome(ended) == expected
                shutil.rmtree(ended)
        whole(broken)
    finish(case.command(root, broken), log)
    assert case.outcome(broken) == expected
    finish(case.command(root, broken), log)  # a finished command is skipped
    assert case.outcome(broken) == expected


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", CASES)
def test_asked_to_stop_at_any_moment(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm], name: str, number: signal.Signals
) -> None:
    """The signal goes to every process: one line, an exit code, and none of them is left."""
    case, broken, log = CASES[name], tmp_path / "broken", tmp_path / "log.txt"
    expected, length = calm(name)
    random = np.random.default_rng([sum(name.encode()), number])
    for _ in range(STOPS):
        process = start(case.command(root, broken), log)
        while not listens(process.pid):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.02)
        time.sleep(float(random.uniform(0, 0.9)) * length)
        if process.poll() is None:
            os.killpg(process.pid, number)
            code = process.wait(timeout=60)
            # -2, death by SIGINT, is how Python itself may end; to a shell it is 130 as well
            assert code in ((0, 130, -2) if number == signal.SIGINT else (0, 75)), (
                code,
                log.read_text()[-3000:],
            )
            assert gone(process.pid), "processes are left"
        whole(broken)
        # Python prints one of its own when Ctrl-C meets it before our first line
        text = re.sub(r"Traceback .*\n((  .*)?\n)+KeyboardInterrupt\n", "", log.read_text())
        assert "Traceback" not in text, text[-3000:]
    finish(case.command(root, broken), log)
    assert case.outcome(broken) == expected


def listens(pid: int) -> bool:
    """Return whether a process handles SIGUSR2 already, by Linux's mask of caught signals."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGUSR2 - 1) & 1)


def kill_all(session: int) -> None:
    """Kill the processes of a session, as a scheduler does: a suite's commands are groups of their
    own."""
    while alive := processes_of(session, os.getsid):
        for number in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def gone(group: int) -> bool:
    """Return whether no process of the group is left, within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_killed_alone_leaves_no_process(tmp_path: Path) -> None:
    """As the kernel does when memory is short: the processes that made masks for it end too."""
    log = tmp_path / "log.txt"
    scenes.write(tmp_path / "photos", 30)
    process = start(CASES["masks"].command(tmp_path, tmp_path / "out"), log)
    while not list(tmp_path.rglob("out/**/[!.]*.png")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert gone(process.pid)


def test_a_killed_worker_ends_the_command_in_one_line(tmp_path: Path) -> None:
    """As the kernel does to the largest process; the same command again finishes."""
    log, command = tmp_path / "log.txt", CASES["masks"].command(tmp_path, tmp_path / "out")
    scenes.write(tmp_path / "photos", 30)
    process = start(command, log)
    while not list(tmp_path.rglob("out/**/[!.]*.png")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    os.kill(max(processes_of(process.pid)), signal.SIGKILL)
    assert process.wait(timeout=60) == 5
    assert (
        log.read_text()
        .splitlines()[-1]
        .startswith("error[environment]: a process that made masks was killed")
    )
    assert gone(process.pid)
    finish(command, log)
    assert len(masks(tmp_path / "out")[0]) == 30


def processes_of(number: int, kind: Callable[[int], int] = os.getpgid) -> list[int]:
    """Return the processes of a group, or of a session; those that only wait to be read are none."""
    numbers = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            alive = " Z " not in (entry / "stat").read_text()
            if alive and kind(int(entry.name)) == number:
                numbers.append(int(entry.name))
    return numbers
