"""Commands that wait for their turn, where `harl-bench ls` shows them: one file each below
<out>/queued/.

Those of a process here count as long as it lives, which a lock tells; those of SLURM carry their
job's number and stay until the job has ended, so that the same suite is not handed over twice.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harl_bench.core.results import write_json
from harl_bench.report.states import LOCK, QUEUED
from harl_bench.suite.cell import Cell


class Line:
    """The queue below a run folder."""

    def __init__(self, out: Path) -> None:
        self._folder = out / QUEUED

    def join(self, cell: Cell, place: int, job: str = "") -> None:
        """Wait: `place` in the order, `job` of SLURM."""
        about = {"cell": cell.name, "place": place, "command": ["harl-bench", *cell.arguments]}
        write_json(self._path(cell), about | ({"job": job} if job else {}))

    def start(self, cell: Cell, started: bool = True) -> None:
        """Its job runs; or it was requeued and waits again."""
        if about := self._read(cell):
            write_json(self._path(cell), about | {"started": started})

    def leave(self, cell: Cell) -> None:
        """It is its turn, or there will be none."""
        self._path(cell).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others wait
            if not any(self._folder.glob("*.json")):
                (self._folder / LOCK).unlink(missing_ok=True)
                self._folder.rmdir()

    def job(self, cell: Cell) -> str:
        """The number of the SLURM job that was to do it, "" for none."""
        return str(self._read(cell).get("job", ""))

    def _read(self, cell: Cell) -> dict[str, Any]:
        try:
            value = json.loads(self._path(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.file}.json"


@contextlib.contextmanager
def line(out: Path, cells: Sequence[Cell]) -> Iterator[Line]:
    """Queue the cells while the block runs."""
    queue, folder = Line(out), out / QUEUED
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as handle:
        with contextlib.suppress(OSError):  # another suite in the same folder holds it for both
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for place, cell in enumerate(cells):
            queue.join(cell, place)
        try:
            yield queue
        finally:
            for cell in cells:
                queue.leave(cell)
