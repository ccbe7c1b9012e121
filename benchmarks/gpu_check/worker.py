"""A process that measures parts, so that what goes wrong in one ends neither run nor report."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.gpu_check.parts import Part
from benchmarks.gpu_check.setting import Setting
from harl_bench.core.errors import MachineError

START_S = 180  # torch's import from a cold disk, and the driver


class Worker:
    """A process with the device, until it is closed.

    Attributes:
        broken: a part raised, died or had no end. A GPU's error stays with its process, so the next
            part needs a new one.

    Raises:
        MachineError: there is no GPU.
    """

    def __init__(self, setting: Setting, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.broken = False
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, setting, log))
        self.process.start()
        other.close()
        problem = self._answer(START_S).get("failed")
        if problem:
            self.close()
            raise MachineError(problem, next="see docs/gpu.md; --tiny runs without a GPU")

    def measure(self, part: Part, limit_s: float) -> dict:
        """Return a part's numbers, or {"skipped": reason}, or {"failed": what happened}."""
        self.pipe.send(part)
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> dict:
        try:
            if self.pipe.poll(limit_s):
                self.broken, outcome = self.pipe.recv()
                return outcome
        except (EOFError, OSError):
            self.broken = True
            self.process.join(5)
            return {"failed": f"its process died, exit code {self.process.exitcode}"}
        self.broken = True
        return {"failed": f"no end after {limit_s:.0f} s"}

    def close(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # where it had no group of its own yet
        self.process.join()
        self.pipe.close()


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
    pipe.send((False, {} if available else {"failed": "no CUDA device"}))
    while available:
        try:
            part = pipe.recv()
        except EOFError:
            return
        print(f"== {part}", flush=True)
        measure.clean()
        module, _, name = part.function.partition(":")
        try:
            pipe.send((False, getattr(import_module(module), name)(setting, **part.arguments)))
        except measure.MissingError as error:
            pipe.send((False, {"skipped": str(error)}))
        except Exception as error:
            traceback.print_exc()
            said = " ".join(str(error).split())[:300]
            pipe.send((True, {"failed": f"{type(error).__name__}: {said}"}))
