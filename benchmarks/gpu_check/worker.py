"""A process that measures parts, so that what goes wrong in one ends neither run nor report."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from benchmarks.gpu_check.parts import Part
from benchmarks.gpu_check.setting import Setting
from harl_bench.core.errors import MachineError

START_S = 180  # torch's import from a cold disk, and the driver


class Worker:
    """A process with the device, for one part after another.

    After a part that raised, died or had no end the next one gets a new process, because a GPU's
    error stays with its process.
    """

    def __init__(self, setting: Setting, log: Path) -> None:
        self.setting, self.log = setting, log
        self.process: multiprocessing.process.BaseProcess | None = None
        self.has_served = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def measure(self, part: Part, limit_s: float) -> dict:
        """Return a part's numbers, or {"skipped": reason}, or {"failed": what happened}.

        Raises:
            MachineError: there is no GPU.
        """
        began = time.monotonic()
        try:
            if self.process is None:
                self.start()
            outcome = self._answer(part, limit_s)
        except MachineError as error:
            if not self.has_served:
                raise
            outcome = {"failed": str(error)}
        self.has_served = True
        return {**outcome, "seconds": round(time.monotonic() - began, 1)}

    def start(self) -> None:
        """Start the process and wait until it has the device."""
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.setting, self.log))
        self.process.start()
        other.close()
        problem = self._answer(None, max(START_S, self.setting.patience_s)).get("failed")
        if problem:
            self.close()
            raise MachineError(problem, next="see docs/gpu.md; --tiny runs without a GPU")

    def _answer(self, part: Part | None, limit_s: float) -> dict:
        """Return what the process says, to a part or once it has started."""
        assert self.process is not None, "start() came before"
        is_whole, outcome = False, {"failed": f"no end after {limit_s:.0f} s"}
        try:
            if part:
                self.pipe.send(part)
            if self.pipe.poll(limit_s):
                is_whole, outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            outcome = {"failed": f"its process died, exit code {self.process.exitcode}"}
        if not is_whole:
            self.close()
        return outcome

    def close(self) -> None:
        """End the process and all that it started."""
        if self.process is None or self.process.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # where it had no group of its own yet
        self.process.join()
        self.pipe.close()
        self.process = None


def serve(pipe: Connection, setting: Setting, log: Path) -> None:
    """Measure the parts that come through a pipe; what they print goes to a file."""
    os.setsid()  # a group of its own, which close() ends
    with open(log, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]  # a run would take all
    if setting.tiny:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # to compile a step takes a CPU minutes
    import torch

    from benchmarks.gpu_check import measure

    available = setting.tiny or torch.cuda.is_available()
    pipe.send((True, {} if available else {"failed": "no CUDA device"}))
    while available:
        try:
            part = pipe.recv()
        except EOFError:
            return
        print(f"== {part}", flush=True)
        measure.clean()
        module, _, name = part.function.partition(":")
        try:
            pipe.send((True, getattr(import_module(module), name)(setting, **part.arguments)))
        except measure.MissingError as error:
            pipe.send((True, {"skipped": str(error)}))
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())[:300]
            pipe.send((False, {"failed": f"{type(error).__name__}: {said}"}))
