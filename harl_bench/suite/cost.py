"""Time and disk that a suite will take, by runs measured here, else by published speeds."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from harl_bench.core.errors import DataError
from harl_bench.core.images import find_images
from harl_bench.core.progress import duration, log
from harl_bench.detection.batch import iteration_s
from harl_bench.report.collect import plain
from harl_bench.suite.command import DETECTION, Command, counted
from harl_bench.suite.state import RunFolder
from pretrain.recipe import EPOCH_S

GIB = 2**30
LISTED = {"1percent.txt": 12_811, "10percent.txt": 128_116}  # lines of SimCLR's lists
# Training checkpoints.
DISK = {**dict.fromkeys(DETECTION, 1.0 * GIB), "segment": 0.6 * GIB, "pretrain": 1.0 * GIB}
MEASURED, UNKNOWN = "measured here", "unknown"
PUBLISHED = "published speeds (8 V100; pretraining: ImageNet on 8 A100)"


class Cost(NamedTuple):
    """The cost of a command.

    Attributes:
        seconds: None where no speed is known.
        source: of the seconds.
        images: that pass through it where no speed is known, if that can be told.
    """

    seconds: float | None
    disk_bytes: float
    source: str
    images: int | None = None


def of(command: Command, runs: Sequence[RunFolder]) -> Cost:
    """Return the cost by finished runs of the same kind, else by published speeds."""
    same = [run for run in runs if run.wall_s is not None and _alike(run, command)]
    if same:
        seconds = median(run.wall_s for run in same if run.wall_s is not None)
        return Cost(seconds, max(map(_size, same[:3])), MEASURED)
    disk = DISK.get(command.task, 0.0)
    if command.protocol.endswith("-toy"):
        return Cost(None, disk / 10, UNKNOWN, _images(command))
    if command.task not in (*DETECTION, "pretrain"):
        return Cost(None, disk, UNKNOWN, _images(command))
    settings = command.settings()
    if command.task == "pretrain":
        return Cost(EPOCH_S * settings.epochs, disk, PUBLISHED)
    pace = iteration_s(settings, command.task)
    if pace is None:
        return Cost(None, disk, UNKNOWN, _images(command))
    return Cost(pace * settings.SOLVER.MAX_ITER, disk, PUBLISHED)


def _alike(run: RunFolder, command: Command) -> bool:
    key = command.task, command.dataset, command.protocol, set(command.overrides)
    return (run.task, run.dataset, run.protocol, set(run.overrides or ())) == key


def _images(command: Command) -> int | None:
    """Return how many images pass through the network or the mask maker; None without such data."""
    settings = command.settings()
    if command.task in DETECTION:
        return int(settings.SOLVER.MAX_ITER * settings.SOLVER.IMS_PER_BATCH)
    if command.task == "segment":
        return int(settings.solver.iterations * settings.solver.batch)
    try:
        if command.task == "classify":
            return _classified(command)
        count = len(find_images(command.data[0]))
    except (DataError, OSError):
        return None
    return count * settings.epochs if command.task == "pretrain" else count


def _classified(command: Command) -> int:
    """Return the images of a classification, by the published sizes; other sets are read."""
    from harl_bench.classify.datasets import DATASETS, read
    from harl_bench.classify.datasets.published import PUBLISHED

    settings = command.settings()
    if published := PUBLISHED.get(command.dataset):
        train = published.train - (0 if published.official_val else published.val)
        val, test = published.val, published.test
    else:
        name = command.dataset if command.dataset in DATASETS else "folder"  # "folder-flowers"
        divided = read(name, command.data[0]).divided(0)
        train, val, test = (len(divided[split]) for split in ("train", "val", "test"))
    names = settings.labelled.names if settings.labelled else ()
    labelled = next((LISTED[name] for name in names if name in LISTED), train)
    return int(settings.cost(labelled, val, test))


def show(commands: Sequence[Command], runs: Sequence[RunFolder], out: Path) -> None:
    """Log time and disk, and warn when the disk will not do."""
    if not commands:
        return
    kinds: dict[object, list[Command]] = {}  # checkpoints and seeds do not matter
    for command in commands:
        kind = command.task, command.setting, command.overrides, command.data_name, command.data
        kinds.setdefault(kind, []).append(command)
    costs = [(members, of(members[0], runs)) for members in kinds.values()]
    for source in (MEASURED, PUBLISHED):
        of_source = [
            (len(members), cost.seconds) for members, cost in costs if cost.source == source
        ]
        known = [(n, seconds) for n, seconds in of_source if seconds is not None]
        if known:
            total, count = sum(n * seconds for n, seconds in known), sum(n for n, _ in known)
            after = " one after the other" if count > 1 else ""
            log.info("time: %s for %s%s, %s", _days(total), counted(count), after, source)
    unknown: dict[str, tuple[int, int | None]] = {}
    for members, cost in costs:
        if cost.seconds is None:
            name = plain(f"{members[0].task} {members[0].setting} on {members[0].data_name}")
            count, images = unknown.get(name, (0, cost.images))
            unknown[name] = count + len(members), images
    for name, (count, images) in unknown.items():
        each = "images not counted (no data of that kind there)"
        each = each if images is None else f"{images:,} images{' each' * (count > 1)}"
        text = "time: %s: %s, %s; not known until one has finished here"
        log.info(text, name, counted(count), each)
    need = sum(len(members) * cost.disk_bytes for members, cost in costs) / GIB
    folder = next(f for f in (out.absolute(), *out.absolute().parents) if f.is_dir())
    free = shutil.disk_usage(folder).free / GIB
    log.info("disk: about %.1f GiB, %.1f GiB free at %s", need, free, folder)
    if need > free:
        log.warning("the disk holds %.1f GiB, these runs need about %.1f", free, need)


def _days(seconds: float) -> str:
    return f"about {seconds / 86400:.1f} days" if seconds > 86400 else f"about {duration(seconds)}"


def _size(run: RunFolder) -> float:
    files = (Path(folder) / name for folder, _, names in os.walk(run.folder) for name in names)
    return float(sum(os.path.getsize(file) for file in files))
