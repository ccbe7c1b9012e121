"""What remains of a command that failed: failed.json in its run folder, where `harl-bench ls` shows
it.
"""

import shutil
import signal
from pathlib import Path

from harl_bench.core.manifest import now
from harl_bench.core.results import IDENTITY, write_json
from harl_bench.suite.cell import Cell
from harl_bench.suite.plan import FAILED, found, near
from harl_bench.suite.process import Ending

RECORD, LOG = "failed.json", "log.txt"


def record(cell: Cell, out: Path, ending: Ending) -> str:
    """Write it down; the cause in a line.

    A command that failed before it had a run folder gets one below <out>/failed/.
    """
    cause = ending.last_line or f"exit code {ending.code}, no message"
    if ending.code < 0:
        cause = f"killed by {signal.Signals(-ending.code).name}" + (
            ": memory?" if -ending.code == signal.SIGKILL else ""
        )
    folder = _folder(cell, out)
    if folder is None:
        folder = out / FAILED / cell.file
        write_json(folder / IDENTITY, {"task": cell.task, "seed": cell.seed, "cell": cell.name})
    log = {"log": str(folder / LOG)} if (folder / LOG).is_file() else {}
    about = {
        "command": ["harl-bench", *cell.arguments],
        "exit_code": ending.code,
        "error": cause,
        "when": now(),
    }
    write_json(folder / RECORD, about | log)
    return cause


def forget(cell: Cell, out: Path) -> None:
    """The command succeeded: remove what an earlier failure left."""
    folder = out / FAILED / cell.file
    if (folder / RECORD).is_file():
        shutil.rmtree(folder)
    place = _folder(cell, out)
    if place is not None:
        (place / RECORD).unlink(missing_ok=True)


def _folder(cell: Cell, out: Path) -> Path | None:
    """The cell's own run folder, if it has got that far."""
    hashes: dict[Path, str] = {}
    folder = found(cell, [] if cell.folder else near(cell, out, hashes), hashes)[1]
    return folder if folder is not None and (folder / IDENTITY).is_file() else None
