"""What a suite will take: time and disk of the commands to do, from runs measured here, else from
published speeds.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from harl_bench.core.errors import DataError
from harl_bench.core.images import find_images
from harl_bench.core.progress import duration
from harl_bench.report.collect import plain
from harl_bench.suite.cell import Cell
from harl_bench.suite.plan import Known

GIB = 2**30
# Seconds an iteration of 16 images, 8 V100 (Detectron2's MODEL_ZOO.md: faster_rcnn_R_50_C4_1x,
# mask_rcnn_R_50_C4_1x, mask_rcnn_R_50_FPN_1x). 4conv1fc heads and SyncBN take more, today's GPUs
# less.
ITERATION_S = {("voc", "c4"): 0.551, ("coco", "c4"): 0.584, ("coco", "fpn"): 0.261}
EPOCH_S = 149 * 3600 / 1000  # HARL on ImageNet's 1,281,167 images, 8 A100 (paper, section 4)
LISTED = {"1percent.txt": 12_811, "10percent.txt": 128_116}  # lines of SimCLR's lists
DISK = {
    "voc": 1.0 * GIB,
    "coco": 1.0 * GIB,
    "pretrain": 1.0 * GIB,
}  # a detector's, or HARL's, training checkpoints
MEASURED, PUBLISHED, UNKNOWN = (
    "measured here",
    "published speeds (8 V100; pretraining: ImageNet on 8 A100)",
    "unknown",
)


class Cost(NamedTuple):
    """Of one command; `seconds` is None where no speed is known: then `images` pass through it, if
    that is known.
    """

    seconds: float | None
    disk_bytes: float
    source: str
    images: int | None = None


def of(cell: Cell, runs: Sequence[Known]) -> Cost:
    """From finished runs of the same task, data and protocol, whatever the checkpoint; else from
    published speeds.
    """
    wanted = cell.task, cell.dataset
    same = [
        run
        for run in runs
        if run.wall_s is not None
        and (run.key.task, run.key.dataset) == wanted
        and run.key.protocol == cell.protocol
        and set(run.overrides or ()) == set(cell.overrides)
    ]
    if same:
        return Cost(
            median(run.wall_s for run in same if run.wall_s is not None),
            max(map(_size, same[:3])),
            MEASURED,
        )
    disk = DISK.get(cell.task, 0.0)
    if cell.protocol.endswith("-toy") or cell.task not in ("voc", "coco", "pretrain"):
        return Cost(None, disk / 10, UNKNOWN, _images(cell))
    if cell.task == "pretrain":
        from pretrain.recipe import load as load_pretraining

        return Cost(
            EPOCH_S * load_pretraining(cell.setting, None, cell.overrides).epochs, disk, PUBLISHED
        )
    if cell.task in ("voc", "coco"):
        from harl_bench.detection.recipe import load

        recipe = load(cell.setting, cell.overrides)
        kind = "fpn" if "FPN" in str(recipe.MODEL.BACKBONE.NAME).upper() else "c4"
        pace = ITERATION_S.get((cell.task, kind))
        if pace is None:
            return Cost(None, disk, UNKNOWN, _images(cell))
        return Cost(pace * recipe.SOLVER.MAX_ITER, disk, PUBLISHED)
    raise AssertionError(f"a task without a cost: {cell.task}")


def _images(cell: Cell) -> int | None:
    """Images that pass through the network, or the mask maker; None where the data are missing or
    of another kind.
    """
    if cell.task in ("voc", "coco"):
        from harl_bench.detection.recipe import load as load_recipe

        solver = load_recipe(cell.setting, cell.overrides).SOLVER
        return int(solver.MAX_ITER * solver.IMS_PER_BATCH)
    try:
        if cell.task == "classify":
            return _classified(cell)
        images = len(find_images(cell.data[0]))
    except (DataError, OSError):
        return None
    if cell.task == "pretrain":
        from pretrain.recipe import load as load_pretraining

        return images * load_pretraining(cell.setting, None, cell.overrides).epochs
    return images


def _classified(cell: Cell) -> int:
    """From the published sizes; a data set without them is read."""
    from harl_bench.classify.datasets import DATASETS
    from harl_bench.classify.datasets.published import PUBLISHED
    from harl_bench.classify.protocol import load as load_protocol

    settings = load_protocol(cell.setting, cell.overrides)[1]
    listed = [
        LISTED[name]
        for name in (settings.labelled.names if settings.labelled else ())
        if name in LISTED
    ]
    if set_ := PUBLISHED.get(cell.dataset):
        train, held, test = (
            set_.train - (0 if cell.dataset == "dtd" else set_.val),
            set_.val,
            set_.test,
        )
    else:
        divided = DATASETS[cell.dataset](cell.data[0]).divided(0)
        train, held, test = (len(divided[split]) for split in ("train", "val", "test"))
    return settings.cost(listed[0] if listed else train, held, test)


def told(cells: Sequence[Cell], runs: Sequence[Known], out: Path) -> tuple[list[str], str]:
    """Lines for the plan, and a warning ("" for none) when the disk will not do."""
    costs = _costs(cells, runs)
    if not costs:
        return [], ""
    lines = []
    for source in (MEASURED, PUBLISHED):
        known = [
            cost.seconds for cost in costs if cost.source == source and cost.seconds is not None
        ]
        if known:
            lines.append(
                f"time: {_days(sum(known))} for {len(known)} commands one after the other, {source}"
            )
    kinds: dict[str, list[Cost]] = {}
    for cell, cost in zip(cells, costs, strict=True):
        if cost.seconds is None:
            kinds.setdefault(plain(f"{cell.task} {cell.setting} on {cell.place}"), []).append(cost)
    for kind, unknown in kinds.items():
        each = unknown[0].images
        images = (
            f", {each:,} images each"
            if each is not None
            else ", images not counted (no data of that kind there)"
        )
        lines.append(
            f"time: {kind}: {len(unknown)} commands{images}; not known until one has finished here"
        )
    need = sum(cost.disk_bytes for cost in costs)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    lines.append(f"disk: about {need / GIB:.1f} GiB, {free / GIB:.1f} GiB free at {place}")
    short = (
        f"the disk holds {free / GIB:.1f} GiB, these runs need about {need / GIB:.1f}"
        if need > free
        else ""
    )
    return lines, short


def _costs(cells: Sequence[Cell], runs: Sequence[Known]) -> list[Cost]:
    """Checkpoints and seeds do not matter: a kind of command is looked at once."""
    known: dict[object, Cost] = {}
    kinds = [(cell.task, cell.setting, cell.overrides, cell.place, cell.data) for cell in cells]
    for cell, kind in zip(cells, kinds, strict=True):
        if kind not in known:
            known[kind] = of(cell, runs)
    return [known[kind] for kind in kinds]


def _days(seconds: float) -> str:
    return f"about {seconds / 86400:.1f} days" if seconds > 86400 else f"about {duration(seconds)}"


def _size(run: Known) -> float:
    return float(
        sum(os.path.getsize(Path(f) / n) for f, _, names in os.walk(run.folder) for n in names)
    )
