"""The commands of a suite on this machine: in order, as many at once as the GPUs allow."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harl_bench.core.errors import MachineError, UsageError
from harl_bench.core.progress import console, duration, log
from harl_bench.core.stopping import stoppable
from harl_bench.report.collect import plain
from harl_bench.suite import records
from harl_bench.suite.command import Command
from harl_bench.suite.finished import Memory
from harl_bench.suite.process import Process, ended

LOGS = "suite-logs"


class Slots(NamedTuple):
    """How commands share this machine.

    Attributes:
        gpus: as CUDA_VISIBLE_DEVICES names them; () hides all; None where none is known.
        at_once: the most commands at a time.
        equal: each gets an equal fraction of the GPUs; otherwise what its kind takes.
    """

    gpus: tuple[str, ...] | None
    at_once: int
    equal: bool = False

    def count(self, command: Command) -> int:
        """Return the number of GPUs that a command gets."""
        total = len(self.gpus or ())
        if self.equal and command.gpus != "none":
            return total // self.at_once
        return {"none": 0, "one": min(1, total), "all": total}[command.gpus]


def slots(gpus: int | None, at_once: int | None) -> Slots:
    """Return how this machine is shared, without loading torch.

    Raises:
        MachineError: fewer GPUs than asked for.
        UsageError: more commands at once than GPUs.
    """
    present = visible_gpus() if gpus != 0 else []
    if gpus is not None and gpus > len(present):
        seen = f"{len(present)} of {gpus}"
        raise MachineError(
            "fewer GPUs than asked for", where="--gpus", seen=seen, next="nvidia-smi"
        )
    selected = tuple(present[:gpus])
    if at_once and selected and at_once > len(selected):
        seen = f"{at_once} on {len(selected)} GPUs"
        raise UsageError("more commands at once than GPUs", where="--at-once", seen=seen)
    known = selected if selected or gpus == 0 else None
    return Slots(known, at_once or max(1, len(selected)), at_once is not None)


def visible_gpus() -> list[str]:
    """Return every GPU this process may use."""
    if (limited := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in limited.split(",") if name.strip() not in ("", "-1")]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    output = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60).stdout
    return [str(i) for i in range(f"\n{output}".count("\nGPU "))]


def run_all(commands: Sequence[Command], out: Path, slots: Slots, memory: Memory) -> dict[str, str]:
    """Run every command; return the causes of those that failed, by name.

    A failure takes along only the commands that need its outcome.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal came; nothing more is started.
    """
    waiting, running, failed = list(commands), dict[Process, Command](), dict[str, str]()
    alone = slots.at_once == 1
    with stoppable() as stop, records.queued(out, commands):
        while running or (waiting and not stop.asked):
            while not stop.asked and (command := next_command(waiting, running, slots)):
                waiting.remove(command)
                records.leave(out, command)
                memory.begin(command)
                number = f"[{commands.index(command) + 1}/{len(commands)}]"
                gpus = free(running, slots)[: slots.count(command)]
                file = None if alone else out / LOGS / f"{command.file}.log"
                _announce(f"{number} {plain(command.name)}", gpus, file)
                known = slots.gpus is not None
                running[Process(command.arguments, gpus if known else None, file)] = command
            for process in ended(list(running), stop):
                command = running.pop(process)
                name = "" if alone else f"{plain(command.name)}: "
                if process.returncode == 0:
                    records.forget_failure(out, command)
                    memory.keep(command)
                    log.info("%sdone in %s", name, duration(time.monotonic() - process.began))
                elif not stop.asked:
                    records.keep_failure(out, command, process)
                    failed |= {command.name: process.cause} | _give_up(waiting, command.makes, out)
                    if not alone:
                        log.warning("%sfailed: %s", name, process.cause)
        stop.raise_if_asked("the suite's state is saved")
    return failed


def next_command(
    waiting: Sequence[Command], running: Mapping[Process, Command], slots: Slots
) -> Command | None:
    """Return the first that can start, if there is room: later ones do not overtake it."""
    missing = {command.makes for command in (*waiting, *running.values())}
    in_use = {command.shares for command in running.values()} - {""}
    for command in waiting:
        if command.shares not in in_use and not missing & set(command.needs):
            room = len(running) < slots.at_once
            return command if room and len(free(running, slots)) >= slots.count(command) else None
    return None


def free(running: Iterable[Process], slots: Slots) -> list[str]:
    """Return the GPUs that no running command has."""
    taken = {gpu for process in running for gpu in process.gpus}
    return [gpu for gpu in slots.gpus or () if gpu not in taken]


def _announce(title: str, gpus: Sequence[str], file: Path | None) -> None:
    if file:
        title += f"  GPU {','.join(gpus)}" if gpus else ""
    console.print(f"{title}  log: {file}" if file else f"\n{title}", style="bold", markup=False)


def _give_up(waiting: list[Command], name: str, out: Path) -> dict[str, str]:
    """Take out of `waiting` what needs `name`, directly or not; makers stand before their users."""
    lost, causes = {name}, dict[str, str]()
    for command in list(waiting):
        if needs := [need for need in command.needs if need in lost]:
            waiting.remove(command)
            records.leave(out, command)
            lost.add(command.makes)
            causes[command.name] = f"{', '.join(needs)} failed, which it needs"
    return causes
