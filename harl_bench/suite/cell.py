"""One command of a suite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harl_bench.core.results import name_digest, slug

Gpus = Literal["none", "one", "all"]


@dataclass(frozen=True)
class Cell:
    """One command.

    Attributes:
        arguments: of harl-bench.
        place: the suite's name of the data, and what they are read as where the name does not say
            it.
        dataset: as a result names it; "" for detection, whose one data set is the task's.
        makes: the name under which others need what it makes.
        needs: names that other cells make, without which it cannot start.
        data: the folders it reads.
        checkpoint: as the suite calls it; of a mask maker its name.
        path: of the checkpoint; None for random and where none is measured.
        folder: where its own record lies, if the suite decides that.
        marks: files that exist when it is finished; () for measurements, whose result tells.
        label: what its row of the report is called, where the suite says it.
        gpus: detectors and pretraining take every GPU there is, most mask makers none.
        engine: of detection, where the suite names one.
        shares: name of stored features that cells of one network have in common; "" for none. One
            cell at a time fills or uses them, so that none holds a GPU only to wait for another.
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
    gpus: Gpus = "one"
    engine: str = ""
    shares: str = ""
    label: str | None = None

    @property
    def row(self) -> tuple[str, ...]:
        """What it shares with its other seeds, in words."""
        setting = " ".join(filter(None, (self.setting, self.engine, *self.overrides)))
        return self.task, self.place, setting, self.checkpoint

    @property
    def name(self) -> str:
        """In one line, unique in the suite."""
        return "  ".join((*self.row, f"seed {self.seed}"))

    @property
    def file(self) -> str:
        """The name as one part of a path, as unique as the name: `slug` alone makes one of "a/b"
        and "a-b".
        """
        return f"{slug(self.name)}-{name_digest(self.name)}"

    @property
    def protocol(self) -> str:
        """The recipe or protocol as results name it."""
        return Path(self.setting).name.removesuffix(".yaml").removesuffix(".yml")
