"""The commands of a suite on this machine: in order, as many at once as the GPUs allow."""

import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harl_bench.core.errors import INTERRUPTED, PREEMPTED, MachineError, PreemptedError, UsageError
from harl_bench.core.progress import console, duration, log
from harl_bench.report.collect import plain
from harl_bench.suite import failures, waiting
from harl_bench.suite.cell import Cell
from harl_bench.suite.finished import Memory
from harl_bench.suite.process import Ending, Processes

LOGS = "suite-logs"


class Slots(NamedTuple):
    """How commands share this machine.

    Attributes:
        gpus: what there is, as CUDA_VISIBLE_DEVICES names them; () for the CPU.
        at_once: the most commands at a time.
        hidden: whether GPUs that may be there are not to be used.
    """

    gpus: tuple[str, ...]
    at_once: int
    hidden: bool = False

    def share(self, cell: Cell, given: bool) -> int:
        """GPUs for this command: detectors and pretraining take all there are, unless told how many
        run at once.
        """
        if given and cell.gpus != "none":
            return len(self.gpus) // self.at_once
        return {"none": 0, "one": min(1, len(self.gpus)), "all": len(self.gpus)}[cell.gpus]


def slots(gpus: int | None, at_once: int | None) -> Slots:
    """What this machine has, torch not asked.

    Raises:
        MachineError: fewer GPUs than asked for.
        UsageError: more commands at once than GPUs.
    """
    named = visible_gpus() if gpus != 0 else []
    if gpus is not None and gpus > len(named):
        raise MachineError(
            "fewer GPUs than asked for",
            where="--gpus",
            seen=f"{len(named)} of {gpus}",
            next="nvidia-smi",
        )
    chosen = tuple(named if gpus is None else named[:gpus])
    if at_once and chosen and at_once > len(chosen):
        raise UsageError(
            "more commands at once than GPUs",
            where="--at-once",
            seen=f"{at_once} on {len(chosen)} GPUs",
        )
    return Slots(chosen, at_once or max(1, len(chosen)), gpus == 0)


def visible_gpus() -> list[str]:
    """Every GPU this process may use."""
    if (limited := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in limited.split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run(
        [tool, "-L"], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return [
        str(i)
        for i, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))
    ]


def run_all(
    cells: Sequence[Cell], out: Path, slots: Slots, at_once: int | None, memory: Memory
) -> dict[str, str]:
    """Every command; the names and causes of those that failed.

    A failure takes along only what needs its outcome.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal came; nothing more is started.
    """
    processes = Processes()
    with processes.forwarding(), waiting.line(out, cells) as line:
        return _Run(
            cells, out, slots, at_once is not None, processes, line.leave, memory
        ).to_the_end()


class _Run:
    def __init__(
        self,
        cells: Sequence[Cell],
        out: Path,
        slots: Slots,
        given: bool,
        processes: Processes,
        leave: Callable[[Cell], None],
        memory: Memory,
    ) -> None:
        self._memory, self._inputs = memory, dict[str, dict[str, Any]]()
        self._all, self._out, self._slots, self._given = cells, out, slots, given
        self._processes, self._leave = processes, leave
        self._left = list(cells)
        self._free = list(slots.gpus)
        self._running = 0
        self._sharing: set[str] = set()  # stored features that a running command fills or uses
        self._unmade = {cell.makes for cell in cells if cell.makes}
        self._lost: set[str] = set()
        self._failed: dict[str, str] = {}
        self._ended: queue.Queue[tuple[Cell, list[str], Ending, float]] = queue.Queue()

    def to_the_end(self) -> dict[str, str]:
        while self._left or self._running:
            while self._processes.came is None and (cell := self._next()):
                self._start(cell)
            if self._running:
                self._take(*self._ended.get())
            if self._processes.came is not None and not self._running:
                stop(Ending(0, ""), self._processes.came)
        return self._failed

    def _next(self) -> Cell | None:
        """The first command whose needs are met, if there is room for it: later ones do not
        overtake it.
        """
        for cell in list(self._left):
            if lost := [need for need in cell.needs if need in self._lost]:
                self._left.remove(cell)
                self._leave(cell)
                self._failed[cell.name] = f"{', '.join(lost)} failed, which it needs"
                self._lost |= {cell.makes} if cell.makes else set()
                continue
            if self._unmade & set(cell.needs) or cell.shares in self._sharing:
                continue
            fits = (
                len(self._free) >= self._slots.share(cell, self._given)
                and self._running < self._slots.at_once
            )
            return cell if fits else None
        return None

    def _start(self, cell: Cell) -> None:
        self._left.remove(cell)
        self._leave(cell)
        share = self._slots.share(cell, self._given)
        gpus, self._free = self._free[:share], self._free[share:]
        self._running += 1
        self._sharing |= {cell.shares} - {""}
        self._inputs[cell.name] = self._memory.inputs(cell)
        number, alone = self._all.index(cell) + 1, self._slots.at_once == 1
        file = None if alone else self._out / LOGS / f"{cell.file}.log"
        told = f"  GPU {','.join(gpus)}" if gpus and not alone else ""
        text = (
            f"[{number}/{len(self._all)}] "
            f"{plain(cell.name)}{told}{f'  log: {file}' if file else ''}"
        )
        console.print(f"\n{text}" if alone else text, style="bold", markup=False)
        began = time.monotonic()

        def work() -> None:
            named = self._slots.gpus or self._slots.hidden
            ending = self._processes.run(cell.arguments, gpus=gpus if named else None, log=file)
            self._ended.put((cell, gpus, ending, began))

        threading.Thread(target=work, daemon=True).start()

    def _take(self, cell: Cell, gpus: list[str], ending: Ending, began: float) -> None:
        self._running -= 1
        self._sharing.discard(cell.shares)
        self._free = sorted(self._free + gpus, key=self._slots.gpus.index)
        if self._running and (self._processes.came is not None or _stopped(ending)):
            self._processes.stop(
                self._processes.came or signal.SIGTERM
            )  # the others save their state, too
            return
        stop(ending, self._processes.came)
        name = "" if self._slots.at_once == 1 else f"{plain(cell.name)}: "
        if ending.code == 0:
            failures.forget(cell, self._out)
            self._memory.keep(cell, self._inputs[cell.name])
            self._unmade.discard(cell.makes)
            log.info("%sdone in %s", name, duration(time.monotonic() - began))
            return
        self._failed[cell.name] = failures.record(cell, self._out, ending)
        if name:
            log.warning("%sfailed: %s", name, self._failed[cell.name])
        if cell.makes:
            self._lost.add(cell.makes)


def _stopped(ending: Ending) -> bool:
    return ending.code in (PREEMPTED, INTERRUPTED, -signal.SIGINT)


def stop(ending: Ending, came: int | None) -> None:
    """Pass a stop on: 75 for a scheduler, 130 for Ctrl-C."""
    if came == signal.SIGINT or ending.code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if came is not None or ending.code == PREEMPTED:
        raise PreemptedError(
            "the suite was stopped, its state is saved", next="give the same command again"
        )
