"""One training and its test, as every process of it needs them."""

from dataclasses import dataclass
from pathlib import Path

from harl_bench.convert.read import Backbone
from harl_bench.segmentation.datasets import Split
from harl_bench.segmentation.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One training and its test.

    Attributes:
        recipe: resolved, overrides included.
        backbone: the pretrained weights and the images that they expect.
        train, test: the data.
        folder: of the run, for `checkpoints/` and `metrics.jsonl`.
        device: "cpu" or "cuda".
        workers: processes that read data, for each training process.
        allow_unreadable: continue although more than 1 % of the images cannot be read.
    """

    recipe: Recipe
    backbone: Backbone
    train: Split
    test: Split
    folder: Path
    seed: int
    device: str
    workers: int = 0
    allow_unreadable: bool = False

    @property
    def last(self) -> Path:
        """Return the path of the saved state; at the end it holds the trained network."""
        return self.folder / "checkpoints" / "last.pth"
