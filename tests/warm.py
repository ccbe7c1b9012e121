"""Processes of harl-bench without the seconds that importing torch takes each of them.

`python -m tests.warm` imports what the commands use and forks itself on demand. What it forks is a
process like any other: its own session, signals, exit code and end of the interpreter.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).parents[1]
LARGEST = 1 << 18  # bytes of a request; most of them are the environment's


class Process:
    """A module that runs, as `python -m` runs it, in a session of its own.

    Args:
        command: the module's name and its arguments.
        stdout: where its output goes, as `stderr`: an open file or a descriptor.
        env: the environment; None leaves this process's.
        cwd: the folder that it starts in; None is this process's.
        largest: no file may grow beyond that many bytes.
    """

    def __init__(
        self,
        command: list[str],
        stdout: IO[Any] | int,
        stderr: IO[Any] | int,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        largest: int | None = None,
    ) -> None:
        request = {
            "command": command,
            "env": {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"},
            "cwd": str(cwd or Path.cwd()),
            "largest": largest,
        }
        files = [file if isinstance(file, int) else file.fileno() for file in (stdout, stderr)]
        self.returncode: int | None = None
        self.pid = ask(request, files)
        self._end = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, negative for a signal, as subprocess does.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a process of tests.warm", timeout or 0)
            self.returncode = ask({"ended": self.pid})
            os.close(self._end)
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None


def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run to its end, ten minutes at most; options are those of `Process`.

    Its output comes through pipes, which no limit on the size of files holds up.
    """
    (out, to_out), (error, to_error) = os.pipe(), os.pipe()
    process = Process(command, to_out, to_error, **options)
    os.close(to_out)
    os.close(to_error)
    with ThreadPoolExecutor(2) as pool:
        texts = [pool.submit(whole, end) for end in (out, error)]
        try:
            code = process.wait(timeout=600)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, code, *(text.result() for text in texts))


def whole(end: int) -> str:
    with open(end, "rb") as pipe:
        return pipe.read().decode(errors="replace")


@functools.cache
def server() -> socket.socket:
    """Start the process that forks, once it has imported all; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    assert ours.recv(64), "it could not start"
    return ours


def ask(request: dict[str, Any], files: list[int] | None = None) -> int:
    """Return the server's answer: the new process's pid, or an exit code."""
    socket.send_fds(server(), [json.dumps(request).encode()], files or [])
    return int(server().recv(64))


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Return it in the new process.

    None when nobody asks any more: what still runs then is killed.
    """
    running = set[int]()
    while True:
        data, files, _, _ = socket.recv_fds(connection, LARGEST, 2)
        if not data:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return None
        request: dict[str, Any] = json.loads(data)
        if "ended" in request:
            status = os.waitpid(request["ended"], 0)[1]
            running.discard(request["ended"])
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        if pid := os.fork():
            running.add(pid)
            connection.send(str(pid).encode())
            for file in files:
                os.close(file)
            continue
        connection.close()
        os.setsid()
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
            os.close(file)
        return request


def end_at_once() -> None:
    """Leave out the interpreter's own clearing of modules, seconds after so many imports."""
    if isinstance(ended.get("code"), int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended["code"])


if __name__ == "__main__":
    ended: dict[str, Any] = {}
    atexit.register(end_at_once)  # before all others: it comes after them
    importlib.import_module("tests.everything")
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.send(b"ready")
    if request := serve(connection):
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        if request["largest"]:
            unlimited = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest"], unlimited))
        np.random.seed()  # as in a process that began on its own
        module, *arguments = request["command"]
        sys.argv[1:] = arguments
        sys.modules.pop(module, None)  # else runpy warns
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            ended["code"] = end.code
            raise
