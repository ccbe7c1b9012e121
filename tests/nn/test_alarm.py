"""Two processes without an agent over them, as a cluster starts them: an error of one ends both."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from harl_bench import cli
from harl_bench.core.errors import (
    BenchError,
    CheckpointError,
    DataError,
    MachineError,
    PreemptedError,
    TrainingError,
    UsageError,
)
from harl_bench.nn import alarm, distributed
from tests import warm

pytestmark = pytest.mark.slow
SECONDS = 20  # from the error to the end of both, on a busy machine
STOPPED = "error[preempted]: stopped by SIGTERM"
FAILED = "image is missing; in a.jpg"


def fail() -> None:
    raise DataError("image is missing", where="a.jpg")


def hang() -> None:
    time.sleep(600)  # as in a collective of NCCL, which hears nothing


def die() -> None:
    os._exit(9)


WORK = {"fails": fail, "hangs": hang, "dies": die}


def worked(first: str, second: str) -> int:
    """Be one of two processes and return its exit code."""
    try:
        with distributed.joined():
            distributed.barrier()
            Path(f"began{distributed.rank()}").touch()
            WORK[(first, second)[distributed.rank()]]()
    except Exception as error:
        return cli._explain(error)
    return 0


def spoilt(what: str) -> None:
    """Let the second process alone fail, or hear a signal, in its second step."""
    from harl_bench.detection.torchvision_engine import train as detection
    from harl_bench.segmentation import train as segmentation
    from pretrain import loop

    def failing(module: object, name: str, error: Exception | None) -> None:
        function, calls = getattr(module, name), iter(range(1000))

        def called(*arguments: object, **keys: object) -> object:
            if next(calls) == 1 and os.environ["RANK"] == "1":
                Path("began1").touch()
                if error:
                    raise error
                signal.raise_signal(signal.SIGTERM)
            return function(*arguments, **keys)

        setattr(module, name, called)

    missing = DataError("image is missing", where="a.jpg")
    if what == "a batch of voc":
        failing(detection, "note", missing)
    elif what == "proposals of voc":
        failing(detection, "_step", TrainingError("training has diverged: proposals"))
    elif what == "a signal to voc":
        failing(detection, "note", None)
    elif what == "a signal to segment":
        failing(segmentation, "note", None)
    elif what == "a batch of segment":
        failing(segmentation, "note", missing)
    else:
        failing(loop.parallel, "without_sync", ValueError("a surprise"))


def ended(folder: Path, *arguments: str) -> tuple[list[int], str]:
    """Run this file's `main` as two processes; return their exit codes and what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    meeting |= {"MASTER_PORT": str(port)}
    folder.mkdir(exist_ok=True)
    processes, logs = [], [folder / "0.log", folder / "1.log"]
    for rank, log in enumerate(logs):
        env = os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with open(log, "wb") as err, open(os.devnull, "wb") as out:
            command = [__spec__.name, *arguments]
            processes.append(warm.Process(command, stdout=out, stderr=err, env=env, cwd=folder))
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
    printed = "".join(log.read_text() for log in logs)
    began = [path.stat().st_mtime for path in folder.glob("began*")]
    assert began, printed
    assert time.time() - max(began) < SECONDS
    lines = [line for line in printed.splitlines() if line.startswith("error[")]
    return codes, "\n".join(lines)


@pytest.mark.parametrize(
    ("first", "second", "codes", "line"),
    [
        ("hangs", "fails", [3, 3], FAILED),
        ("fails", "hangs", [3, 3], FAILED),
        ("fails", "fails", [3, 3], FAILED),
        ("dies", "hangs", [9, 5], "a process of the run died"),
    ],
)
def test_one_line_and_one_exit_code(
    tmp_path: Path, first: str, second: str, codes: list[int], line: str
) -> None:
    seen, printed = ended(tmp_path / "run", "worked", first, second)
    assert seen == codes
    assert line in printed
    assert printed.count("\n") == 0


def commands(folder: Path) -> dict[str, list[str]]:
    """Each command on tiny data below a folder."""
    from tests.detection import test_run as detection
    from tests.detection import tiny
    from tests.pretrain.conftest import write_images
    from tests.segmentation import test_run as segmentation
    from tests.segmentation import trees

    root, out = tiny.voc(folder / "voc"), folder / "out"
    return {
        "voc": [*detection.voc(root, out), *detection.QUICK, "SOLVER.MAX_ITER=4"],
        "segment": [
            *segmentation.command(trees.voc(folder / "trees", "sbd"), out),
            *segmentation.TINY,
            "solver.batch=4",
        ],
        "pretrain": [
            *("pretrain", "--method", "byol", "--recipe", "byol-toy", "--workers", "0"),
            *("--data", str(write_images(folder / "images", 16)[0]), "--out", str(out)),
            *("batch_size=8", "epochs=4"),
        ],
    }


@pytest.mark.parametrize(
    ("what", "code", "line"),
    [
        ("a batch of voc", 3, f"error[data]: {FAILED}"),
        ("proposals of voc", 1, "error[training]: training has diverged: proposals at iteration 1"),
        ("a batch of segment", 3, f"error[data]: {FAILED}"),
        ("a signal to voc", 75, f"{STOPPED}, iteration 2 of 4 is saved"),
        ("a signal to segment", 75, f"{STOPPED}, iteration 2 of 3 is saved"),
        ("a step of pretrain", 1, "error[internal]: ValueError: a surprise"),
    ],
)
def test_the_loops_end_together(tmp_path: Path, what: str, code: int, line: str) -> None:
    command = commands(tmp_path)[what.split()[-1]]
    codes, printed = ended(tmp_path / "run", "spoilt", what, *command)
    assert codes == [code, code]
    assert printed.startswith(line)
    assert printed.count("\n") == 0


if __name__ == "__main__":
    if sys.argv[1] == "worked":
        sys.exit(worked(*sys.argv[2:]))
    spoilt(sys.argv[2])
    sys.exit(cli.main(sys.argv[3:]))


@pytest.mark.parametrize(
    "error",
    [
        kind("what", where=Path("a/b"), seen=3, next="do this")
        for kind in (DataError, UsageError, CheckpointError, MachineError, PreemptedError)
    ],
    ids=lambda error: error.kind,
)
def test_an_error_travels_as_text(error: BenchError) -> None:
    """Its kind, line and exit code arrive; nothing of another process is unpickled."""
    again = alarm.read(alarm.written(error))
    assert type(again) is type(error)
    assert (again.line(), again.exit_code) == (error.line(), error.exit_code)
