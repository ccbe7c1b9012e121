"""One command of a suite."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """One command.

    Attributes:
        arguments: of harl-bench.
        makes: the name under which others need what it makes.
        needs: names that other cells make, without which it cannot start.
        data: the folders it reads.
        checkpoint: as the suite calls it; of a mask maker its name.
        path: of the checkpoint; None for random and where none is measured.
        folder: where its own record lies, if the suite decides that.
        marks: files that exist when it is finished; () for measurements, whose result tells.
        label: what its row of the report is called, where the suite says it.
        all_gpus: whether it trains on every GPU there is; otherwise one is enough.
    """

    task: str
    setting: str
    place: str
    checkpoint: str
    seed: int
    overrides: tuple[str, ...]
    arguments: tuple[str, ...]
    data: tuple[Path, ...]
    dataset: str = ""
    makes: str = ""
    needs: tuple[str, ...] = ()
    path: Path | None = None
    folder: Path | None = None
    marks: tuple[Path, ...] = ()
    all_gpus: bool = False
    label: str | None = None

    @property
    def row(self) -> tuple[str, ...]:
        """What it shares with its other seeds, in words."""
        return self.task, self.place, " ".join((self.setting, *self.overrides)), self.checkpoint

    @property
    def name(self) -> str:
        """In one line, unique in the suite."""
        return "  ".join((*self.row, f"seed {self.seed}"))
