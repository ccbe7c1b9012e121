"""What a suite will take: time and disk of the commands to do, from runs measured here, else from published speeds."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from harl_bench.core.progress import duration
from harl_bench.suite.cell import Cell
from harl_bench.suite.plan import Known

GIB = 2**30
# Seconds an iteration of 16 pictures, 8 V100 (Detectron2's MODEL_ZOO.md: faster_rcnn_R_50_C4_1x, mask_rcnn_R_50_C4_1x,
# mask_rcnn_R_50_FPN_1x). 4conv1fc heads and SyncBN take more, today's GPUs less.
ITERATION_S = {("voc", "c4"): 0.551, ("coco", "c4"): 0.584, ("coco", "fpn"): 0.261}
EPOCH_S = 149 * 3600 / 1000  # HARL on ImageNet's 1,281,167 pictures, 8 A100 (paper, section 4)
DISK = {"voc": 1.0 * GIB, "coco": 1.0 * GIB, "pretrain": 1.0 * GIB}  # a detector's, or HARL's, training checkpoints
MEASURED, PUBLISHED, UNKNOWN = "measured here", "published speeds (8 V100; pretraining: ImageNet on 8 A100)", "unknown"


class Cost(NamedTuple):
    """Of one command; `seconds` is None where nothing is known."""

    seconds: float | None
    disk_bytes: float
    source: str


def of(cell: Cell, runs: Sequence[Known]) -> Cost:
    """From finished runs of the same task, data and protocol, whatever the checkpoint; else from published speeds."""
    wanted = cell.task, cell.dataset
    protocol = Path(cell.setting).name.removesuffix(".yaml").removesuffix(".yml")
    same = [
        run for run in runs
        if run.wall_s is not None and (run.key.task, run.key.dataset) == wanted and run.key.protocol == protocol
        and set(run.overrides or ()) == set(cell.overrides)
    ]  # fmt: skip
    if same:
        return Cost(median(run.wall_s for run in same if run.wall_s is not None), max(map(_size, same[:3])), MEASURED)
    disk = DISK.get(cell.task, 0.0)
    if protocol.endswith("-toy"):
        return Cost(None, disk / 10, UNKNOWN)
    if cell.task == "pretrain":
        from pretrain.recipe import load as load_pretraining

        return Cost(EPOCH_S * load_pretraining(cell.setting, None, cell.overrides).epochs, disk, PUBLISHED)
    if cell.task in ("voc", "coco"):
        from harl_bench.detection.recipe import load

        recipe = load(cell.setting, cell.overrides)
        kind = "fpn" if "FPN" in str(recipe.MODEL.BACKBONE.NAME).upper() else "c4"
        pace = ITERATION_S.get((cell.task, kind))
        return Cost(pace * recipe.SOLVER.MAX_ITER if pace else None, disk, PUBLISHED if pace else UNKNOWN)
    return Cost(None, disk, UNKNOWN)


def told(cells: Sequence[Cell], runs: Sequence[Known], out: Path) -> tuple[list[str], str]:
    """Lines for the plan, and a warning ("" for none) when the disk will not do."""
    costs = [of(cell, runs) for cell in cells]
    if not costs:
        return [], ""
    lines = []
    for source in (MEASURED, PUBLISHED):
        known = [cost.seconds for cost in costs if cost.source == source and cost.seconds is not None]
        if known:
            lines.append(f"time: {_days(sum(known))} for {len(known)} commands one after the other, {source}")
    if unknown := sum(cost.seconds is None for cost in costs):
        lines.append(f"time: not known for {unknown} commands until one of their kind has finished here")
    need = sum(cost.disk_bytes for cost in costs)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    lines.append(f"disk: about {need / GIB:.1f} GiB, {free / GIB:.1f} GiB free at {place}")
    short = f"the disk holds {free / GIB:.1f} GiB, these runs need about {need / GIB:.1f}" if need > free else ""
    return lines, short


def _days(seconds: float) -> str:
    return f"about {seconds / 86400:.1f} days" if seconds > 86400 else f"about {duration(seconds)}"


def _size(run: Known) -> float:
    return float(sum(os.path.getsize(Path(f) / n) for f, _, names in os.walk(run.folder) for n in names))
