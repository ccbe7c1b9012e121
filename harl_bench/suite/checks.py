"""Questions before a suite starts: does each kind of its commands accept its inputs?

Each is asked by its own `--dry-run`, so that a run which is refused in three weeks is refused now.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harl_bench.core.errors import (
    BenchError,
    CheckpointError,
    DataError,
    MachineError,
    TrainingError,
    UsageError,
)
from harl_bench.core.progress import log
from harl_bench.report.collect import plain
from harl_bench.suite.command import Command
from harl_bench.suite.config import RANDOM
from harl_bench.suite.local import Slots
from harl_bench.suite.process import Process, run

ERRORS = (UsageError, DataError, CheckpointError, MachineError, TrainingError)
KINDS = {kind.exit_code: kind for kind in ERRORS}


def refusals(commands: Sequence[Command], slots: Slots | None) -> Iterator[BenchError]:
    """Yield what the commands refuse, one of each kind, data set and checkpoint being asked.

    Args:
        commands: what is to be done.
        slots: how this machine is shared; None where another one computes.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal came.
    """
    asked = set[object]()
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            if command.task == "masks" or (
                command.needs and command.path is None and command.task != "pretrain"
            ):
                continue  # scores, or works on, what the suite has yet to make
            setting = command.setting, command.engine, command.overrides
            kind = (command.task, command.data_name, *setting, command.folder)
            path = None if command.needs else command.path
            if {kind, path} <= asked:
                continue
            asked |= {kind, path}
            log.info("checking %s", plain(command.name))
            if command.task == "pretrain" and command.needs:
                yield from _unmasked(command)
                continue
            gpus = slots.gpus[: slots.count(command)] if slots and slots.gpus is not None else None
            process = run(_words(command), gpus, Path(folder) / "log")
            if process.returncode and (slots or process.returncode != MachineError.exit_code):
                yield _error(command, process)


def _unmasked(command: Command) -> Iterator[BenchError]:
    """Check all but the masks of a pretraining, where the suite has yet to make them."""
    from pretrain.job import prepared

    try:
        prepared(command.settings(), command.data[0], None, None)
    except BenchError as error:
        yield type(error)(f"{command.name}: {error}")


def _words(command: Command) -> tuple[str, ...]:
    """Return the command with --dry-run, and random weights for those that are yet to be made."""
    words = list(command.arguments)
    if command.needs:
        words[1] = RANDOM
    return (*words, "--dry-run")


def _error(command: Command, process: Process) -> BenchError:
    kind = KINDS.get(process.returncode, BenchError)
    return kind(f"{command.name}: {process.cause.removeprefix(f'error[{kind.kind}]: ')}")
