"""One command of a suite."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harl_bench.core.results import name_digest, slug

Gpus = Literal["none", "one", "all"]
DETECTION = ("voc", "coco", "cityscapes")  # tasks with Detectron2's recipes


@dataclass(frozen=True)
class Command:
    """One command of a suite, which makes masks, pretrains, or measures a checkpoint.

    Attributes:
        task: the command's name, "masks" for an evaluation of masks.
        setting: recipe, protocol or mask maker.
        data_name: the suite's name of the data, and what they are read as if that is unclear.
        checkpoint: the suite's name of the checkpoint, or of the masks.
        arguments: of harl-bench.
        data: the folders it reads.
        dataset: as a result names it; "" for detection, whose one data set is the task's.
        makes: the name under which others need its outcome.
        needs: names that other commands make, without which it cannot start.
        path: of the checkpoint; None for random weights and where none is measured.
        folder: of its own record, if the suite decides that.
        outputs: files that exist when it is finished; () for measurements, whose result tells.
        gpus: detectors and pretraining take every GPU, most mask makers none.
        engine: of detection, where the suite names one.
        shares: stored features that commands on one network have in common; "" for none. One at a
            time fills or uses them, so that none holds a GPU only to wait for another.
    """

    task: str
    setting: str
    data_name: str
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
    outputs: tuple[Path, ...] = ()
    gpus: Gpus = "one"
    engine: str = ""
    shares: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Words that it has in common with its other seeds."""
        setting = " ".join(filter(None, (self.setting, self.engine, *self.overrides)))
        return self.task, self.data_name, setting, self.checkpoint

    @property
    def name(self) -> str:
        """One line, unique in the suite."""
        return "  ".join((*self.row, f"seed {self.seed}"))

    @property
    def file(self) -> str:
        """The name as one part of a path, as unique: `slug` alone makes one of "a/b" and "a-b"."""
        return f"{slug(self.name)}-{name_digest(self.name)}"

    @property
    def protocol(self) -> str:
        """The recipe or protocol as results name it."""
        return Path(self.setting).name.removesuffix(".yaml").removesuffix(".yml")

    def settings(self) -> Any:
        """Return the recipe or protocol with the overrides applied; None for mask steps."""
        if self.task in DETECTION:
            from harl_bench.detection.recipe import load as load_recipe

            return load_recipe(self.setting, self.overrides)
        if self.task == "segment":
            from harl_bench.segmentation.recipe import load as load_segmentation

            return load_segmentation(self.setting, self.overrides)[1]
        if self.task == "classify":
            from harl_bench.classify.protocol import load as load_protocol

            return load_protocol(self.setting, self.overrides)[1]
        if self.task == "pretrain":
            from pretrain.recipe import load as load_pretraining

            return load_pretraining(self.setting, None, self.overrides)
        return None


def counted(number: int) -> str:
    """Return `1 command`, `2 commands`."""
    return f"{number} command{'s' * (number != 1)}"


def options(values: Mapping[str, object]) -> list[str]:
    """Return options as arguments; those whose value is None are left out."""
    given = ((option, str(value)) for option, value in values.items() if value is not None)
    return [word for pair in given for word in pair]
