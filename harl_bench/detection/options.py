"""The options that `voc`, `coco` and `cityscapes` share, as planning and running take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harl_bench.convert.formats import Net


@dataclass(frozen=True)
class Options:
    """The options of `voc`, `coco` and `cityscapes`; see run.py."""

    task: Literal["voc", "coco", "cityscapes"]
    checkpoint: str
    overrides: Sequence[str]
    data: Path | None
    recipe: str
    engine: str
    seeds: Sequence[int]
    out: Path
    net: Net | None
    eval_only: bool
    max_iter: int | None
    lr: Sequence[float] | None
    batch: int | None
    scale_lr: bool
    amp: bool
    workers: int | None
    gpus: int | None
    allow_unreadable: bool
    images: int
    dry_run: bool
    fresh: bool
    save_memory: bool
    label: str | None
    evaluator: str = "auto"
