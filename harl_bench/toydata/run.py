"""The command `harl-bench toy-data`."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.options import COMMON, Fresh
from harl_bench.core.progress import log
from harl_bench.core.toy import MARKER, SENTENCE

COMPLETE = "toy.json"  # the settings, written last
PARTS = ("photos", "voc", "coco", "classify", "segment", "transfer")
SIDE_PX = 96
# Images at scale 1: enough for a demo on two cores.
PHOTOS = 128
VOC2007, VOC2012 = {"train": 20, "val": 20, "test": 40}, {"train": 20, "val": 20}
COCO = {"train": 80, "val": 40}
CLASSES = {"train": 16, "test": 60}
SEGMENT, CITYSCAPES = {"train": 20, "val": 20, "extra": 40}, {"train": 8, "val": 4}
TRANSFER = {"train": 5, "val": 3, "test": 4}  # a class, of each of the twelve sets


def toy_data(
    folder: Path,
    /,
    *,
    seed: Annotated[int, Parameter(group=COMMON, help="Decides every image.")] = 0,
    scale: Annotated[
        float, Parameter(group=COMMON, help="Times as many images as a demo needs.")
    ] = 1.0,
    side_px: Annotated[
        int,
        Parameter(
            group=COMMON,
            help="About the longer side of images for detection; others have two thirds.",
        ),
    ] = SIDE_PX,
    fresh: Fresh = False,
) -> None:
    """Generate small data sets: VOC, COCO, classes, photos with masks, Cityscapes, transfer sets.

    Five shapes on clouded grounds, shaded, occluded and cut. Numbers measured on them say nothing
    about any method.

    Try:

        harl-bench toy-data toy

        harl-bench toy-data toy-large --seed 1 --scale 4

    Args:
        folder: Where to; missing, empty, or an earlier toy-data folder.
    """
    if not 0 < scale <= 1000 or not 48 <= side_px <= 1024 or seed < 0:
        raise UsageError(
            "scale lies in (0, 1000], side-px in [48, 1024], seed from 0",
            seen=f"{scale}, {side_px}, {seed}",
        )
    settings = {"seed": seed, "scale": scale, "side_px": side_px, "format": 4}
    if _complete(folder, settings, fresh=fresh):
        log.info("already there: %s", folder)
        return
    import numpy as np

    from harl_bench.core.progress import Tracker
    from harl_bench.toydata import coco, folders, segment, sheet, transfer, voc

    def scaled(counts: dict[str, int]) -> dict[str, int]:
        return {split: max(2, round(n * scale)) for split, n in counts.items()}

    for part in ("", *PARTS):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / MARKER).write_text(f"{SENTENCE}\n", encoding="utf-8")
    photos, small_px = max(2, round(PHOTOS * scale)), side_px * 2 // 3
    writers: dict[str, Callable[..., None]] = {
        "photos": partial(folders.write_photos, folder / "photos", photos, side_px=small_px),
        "VOC2007": partial(voc.write, folder / "voc", 2007, scaled(VOC2007), side_px=side_px),
        "VOC2012": partial(voc.write, folder / "voc", 2012, scaled(VOC2012), side_px=side_px),
        "COCO": partial(coco.write, folder / "coco", scaled(COCO), side_px=side_px),
        "classify": partial(
            folders.write_classes, folder / "classify", scaled(CLASSES), side_px=small_px
        ),
        "segment": partial(segment.write_voc, folder / "segment", scaled(SEGMENT), side_px=side_px),
        "Cityscapes": partial(
            segment.write_cityscapes,
            folder / "segment" / "cityscapes",
            scaled(CITYSCAPES),
            side_px=side_px,
        ),
        "transfer": partial(
            transfer.write, folder / "transfer", scaled(TRANSFER), side_px=small_px
        ),
    }
    streams = np.random.default_rng(seed).spawn(len(writers))
    with Tracker("toy data", len(writers)) as tracker:
        for (name, write), random in zip(writers.items(), streams, strict=True):
            write(random=random)
            tracker.advance(1, part=name)
    sheet.write(folder)
    write_json(folder / COMPLETE, settings)
    counts = ", ".join(
        f"{part} {sum(1 for _ in (folder / part).rglob('*.jpg')):,}" for part in PARTS
    )
    log.info("wrote %s: images in %s; a look at them: %s", folder, counts, folder / sheet.NAME)


def _complete(folder: Path, settings: dict[str, Any], *, fresh: bool) -> bool:
    """Return whether the folder already holds these data; make room for them when it does not.

    Raises:
        DataError: the folder holds something else.
        UsageError: it holds toy data of other settings.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if not (folder / MARKER).is_file():
        raise DataError(
            "the folder holds other files", where=folder, next="give a new or empty folder"
        )
    if (folder / COMPLETE).is_file() and not fresh:
        earlier = json.loads((folder / COMPLETE).read_text())
        if earlier == settings:
            return True
        changed = {key: value for key, value in settings.items() if earlier.get(key) != value}
        raise UsageError(
            "the folder holds toy data of other settings",
            where=folder,
            seen=", ".join(f"{k} was {earlier.get(k)}, now {v}" for k, v in changed.items()),
            next="give another folder, or --fresh to replace them",
        )
    (folder / COMPLETE).unlink(missing_ok=True)
    for part in PARTS:
        if (folder / part / MARKER).is_file():
            shutil.rmtree(folder / part)
    return False
