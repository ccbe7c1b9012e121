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
from harl_bench.core.progress import log
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
        train, test: the data; `train` without images that hold no object.
        folder: of the run, for `checkpoints/`, `metrics.jsonl` and `log.txt`.
        device: "cpu" or "cuda".
        workers: processes that read data, per training process.
        allow_unreadable: continue although more than 1 % of the images cannot be read.
        evaluator: COCO's: "auto", "hotcoco" or "pycocotools".
        save_memory: recompute activations in the backward pass. The numbers are the same.
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
    save_memory: bool = False


class Engine(NamedTuple):
    """The functions of an engine as "module:function".

    train(job) -> {"unreadable", "wall_s"}: from the backbone, or from the last checkpoint, to
    checkpoints/model_final.pth.
    evaluate(job, weights: Path) -> list[Prediction]: a checkpoint's detections of the test set.
    """

    train: str
    evaluate: str

    def load(
        self,
    ) -> tuple[Callable[[Job], dict[str, Any]], Callable[[Job, Path], Sequence[Prediction]]]:
        """Import the two functions."""
        return _import(self.train), _import(self.evaluate)


ENGINES = {
    "torchvision": Engine(
        "harl_bench.detection.torchvision_engine.train:train",
        "harl_bench.detection.torchvision_engine.evaluate:evaluate",
    ),
    "detectron2": Engine(
        "harl_bench.detection.detectron2_engine:train",
        "harl_bench.detection.detectron2_model:evaluate",
    ),
}


def choose(name: str) -> Name:
    """Return the engine of a name. "auto" is Detectron2 if it can be imported, else torchvision.

    Raises:
        MachineError: the engine is "detectron2", which is not installed, or broken.
        UsageError: no engine has this name.
    """
    if name != "auto":
        lookup(ENGINES, name, "engine")
    if name == "torchvision":
        return "torchvision"
    installed = importlib.util.find_spec("detectron2") is not None
    fault = import_fault() if installed else None
    if installed and not fault:
        return "detectron2"
    if name == "auto":
        if fault:
            log.warning(
                "Detectron2 is installed but broken, so the torchvision engine is used: %s", fault
            )
        return "torchvision"
    raise MachineError(
        "Detectron2 cannot be imported" if installed else "Detectron2 is not installed",
        seen=fault,
        next=f"{INSTALL} (see docs/detectron2.md), or --engine torchvision",
    )


def import_fault() -> str | None:
    """Return why the installed Detectron2 cannot be used in one line, None if it can.

    A build for another torch, the tag v0.6 with today's Pillow, or a bare checkout fail in ways of
    their own.
    """
    try:
        ENGINES["detectron2"].load()
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    message = "`torch.jit.script` is deprecated"  # fvcore and Detectron2 script functions on import
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        return getattr(import_module(module), attribute)
