"""The two engines: the same recipe, data and weights go in, the same files come out."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harl_bench.core.errors import MachineError
from harl_bench.core.lookup import lookup
from harl_bench.detection.datasets.sample import Dataset

if TYPE_CHECKING:
    from harl_bench.detection.recipe import Recipe
    from harl_bench.detection.scoring import Prediction

Name = Literal["torchvision", "detectron2"]
INSTALL = (
    "pip install --no-build-isolation "
    "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833"
)


@dataclass(frozen=True)
class Job:
    """One training and its evaluation.

    Attributes:
        recipe: resolved, overrides included.
        tensors: of the pre-trained backbone, by torchvision's names.
        train, test: the data; `train` without pictures that hold no object.
        folder: of the run; `checkpoints/`, `metrics.jsonl` and `log.txt` go there.
        device: "cpu" or "cuda".
        workers: processes that read data, per training process.
        allow_unreadable: train on although more than 1 % of the pictures cannot be read.
        evaluator: COCO's: "auto", "hotcoco" or "pycocotools".
    """

    recipe: Recipe
    tensors: dict[str, Any]
    train: Dataset
    test: Dataset
    folder: Path
    seed: int
    device: str
    workers: int = 0
    allow_unreadable: bool = False
    evaluator: str = "auto"


class Engine(NamedTuple):
    """Where an engine's functions live, "module:function".

    train(job) -> dict: from the backbone, or from the last checkpoint, to checkpoints/model_final.pth; returns what
    the record should say ({"unreadable": [paths]}).
    evaluate(job, weights: Path) -> list[Prediction]: detections of the test set by a checkpoint.
    """

    train: str
    evaluate: str

    def load(self) -> tuple[Callable[[Job], dict[str, Any]], Callable[[Job, Path], Sequence[Prediction]]]:
        """The two functions, imported now."""
        return _imported(self.train), _imported(self.evaluate)


ENGINES = {
    "torchvision": Engine(
        "harl_bench.detection.torchvision_engine.train:train",
        "harl_bench.detection.torchvision_engine.evaluate:evaluate",
    ),
    "detectron2": Engine(
        "harl_bench.detection.detectron2_engine:train", "harl_bench.detection.detectron2_engine:evaluate"
    ),
}


def choose(name: str) -> Name:
    """The engine of a name; "auto" is Detectron2 where it is installed, else torchvision.

    Raises:
        MachineError: "detectron2" was asked for and is not installed.
        UsageError: no engine has this name.
    """
    installed = importlib.util.find_spec("detectron2") is not None
    if name == "auto":
        return "detectron2" if installed else "torchvision"
    lookup(ENGINES, name, "engine")
    if name == "detectron2" and not installed:
        raise MachineError(
            "Detectron2 is not installed", next=f"{INSTALL} (see docs/detectron2.md), or --engine torchvision"
        )
    return "detectron2" if name == "detectron2" else "torchvision"


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    with warnings.catch_warnings():  # fvcore and Detectron2 script functions on import, which torch 2.14 deprecates
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
        return getattr(import_module(module), attribute)
