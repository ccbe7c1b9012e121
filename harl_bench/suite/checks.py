"""What a suite asks before it starts, in earnest or with --dry-run: does each kind of its commands
accept its inputs?

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
from harl_bench.suite import local
from harl_bench.suite.cell import Cell
from harl_bench.suite.config import RANDOM
from harl_bench.suite.process import Ending, Processes

KINDS = {
    kind.exit_code: kind
    for kind in (UsageError, DataError, CheckpointError, MachineError, TrainingError)
}


def refusals(cells: Sequence[Cell], slots: local.Slots | None, given: bool) -> Iterator[BenchError]:
    """Yield what the commands refuse, one of each kind, data set and checkpoint being asked.

    Args:
        cells: what is to be done.
        slots: how this machine is shared out; None where another one computes: what its hardware
            allows is not asked.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal came.
    """
    processes, asked = Processes(), set[object]()
    with tempfile.TemporaryDirectory() as folder, processes.forwarding():
        for cell in cells:
            if cell.task == "masks" or (
                cell.needs and cell.path is None and cell.task != "pretrain"
            ):
                continue  # scores, or works on, what the suite has yet to make
            kind = (cell.task, cell.place, cell.setting, cell.engine, cell.overrides, cell.folder)
            path = None if cell.needs else cell.path
            if {kind, path} <= asked:
                continue
            asked |= {kind, path}
            log.info("checking %s", plain(cell.name))
            if cell.task == "pretrain" and cell.needs:
                yield from _unmasked(cell)
                continue
            share = (
                slots.gpus[: slots.share(cell, given)]
                if slots and (slots.gpus or slots.hidden)
                else None
            )
            ending = processes.run(_words(cell), gpus=share, log=Path(folder) / "log")
            local.stop(ending, processes.came)
            if ending.code and not (slots is None and ending.code == MachineError.exit_code):
                yield _error(cell, ending)


def _unmasked(cell: Cell) -> Iterator[BenchError]:
    """A pretraining whose masks the suite has yet to make: all but the masks is looked at."""
    from pretrain.job import prepared
    from pretrain.recipe import load

    try:
        prepared(load(cell.setting, None, cell.overrides), cell.data[0], None, None)
    except BenchError as error:
        yield type(error)(f"{cell.name}: {error}")


def _words(cell: Cell) -> tuple[str, ...]:
    """The command with --dry-run; random weights stand for those that the suite has yet to make."""
    words = list(cell.arguments)
    if cell.needs:
        words[1] = RANDOM
    return (*words, "--dry-run")


def _error(cell: Cell, ending: Ending) -> BenchError:
    kind = KINDS.get(ending.code, BenchError)
    text = (
        ending.last_line.removeprefix(f"error[{kind.kind}]: ")
        or f"exit code {ending.code}, no message"
    )
    return kind(f"{cell.name}: {text}")
