"""Commands that wait or failed, where `harl-bench ls` shows them: <out>/queued/ and failed.json.

Those that wait here count as long as this process lives, which a lock tells. Those of SLURM carry
the number of their job and stay until it has ended, so that a suite is not handed over twice.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from harl_bench.core.files import write_json
from harl_bench.core.manifest import now
from harl_bench.core.results import IDENTITY
from harl_bench.report.states import FAILED as RECORD
from harl_bench.report.states import LOCK, LOG, QUEUED
from harl_bench.suite.command import Command
from harl_bench.suite.process import Process
from harl_bench.suite.state import FAILED, find, near, read_json


@contextlib.contextmanager
def queued(out: Path, commands: Sequence[Command]) -> Iterator[None]:
    """Queue commands while the block runs; each may `leave` before."""
    folder = out / QUEUED
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        with contextlib.suppress(OSError):  # another suite in the same folder holds it for both
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for position, command in enumerate(commands):
            join(out, command, position)
        try:
            yield
        finally:
            for command in commands:
                leave(out, command)
            if not any(folder.glob("*.json")):
                shutil.rmtree(folder, ignore_errors=True)  # another suite may have done it


def join(out: Path, command: Command, position: int, job: str = "") -> None:
    """Queue a command at a position in the order, with the number of its SLURM job if any."""
    about = {"cell": command.name, "place": position, "command": ["harl-bench", *command.arguments]}
    write_json(_queue_file(out, command), about | ({"job": job} if job else {}))


def mark(out: Path, command: Command, *, started: bool) -> None:
    """Note that the SLURM job of a command runs, or waits again."""
    if about := read_json(_queue_file(out, command)):
        write_json(_queue_file(out, command), about | {"started": started})


def leave(out: Path, command: Command) -> None:
    """Take a command out of the queue."""
    _queue_file(out, command).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others wait
        (out / QUEUED).rmdir()


def job(out: Path, command: Command) -> str:
    """Return the number of the SLURM job that does a command, "" for none."""
    return str(read_json(_queue_file(out, command)).get("job", ""))


def _queue_file(out: Path, command: Command) -> Path:
    return out / QUEUED / f"{command.file}.json"


def keep_failure(out: Path, command: Command, process: Process) -> None:
    """Write failed.json into the run folder, or one below <out>/failed/ if there is none yet."""
    folder = _run_folder(out, command)
    if folder is None:
        folder = out / FAILED / command.file
        write_json(
            folder / IDENTITY, {"task": command.task, "seed": command.seed, "cell": command.name}
        )
    about = {"command": ["harl-bench", *command.arguments], "exit_code": process.returncode}
    log = {"log": str(folder / LOG)} if (folder / LOG).is_file() else {}
    write_json(folder / RECORD, about | {"error": process.cause, "when": now()} | log)


def forget_failure(out: Path, command: Command) -> None:
    """Remove what earlier failures of a command left."""
    shutil.rmtree(out / FAILED / command.file, ignore_errors=True)
    if folder := _run_folder(out, command):
        (folder / RECORD).unlink(missing_ok=True)


def _run_folder(out: Path, command: Command) -> Path | None:
    folder = find(command, near(command, out))[1]
    return folder if folder is not None and (folder / IDENTITY).is_file() else None
