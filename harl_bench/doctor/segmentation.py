"""Segmentation sets: VOC 2012 with its extra labels, and Cityscapes, by their commands' readers."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shlex import quote

from harl_bench.core.cityscapes import ARCHIVES, INSTANCES, PUBLISHED, TRUTH, home, pairs
from harl_bench.core.errors import BenchError, MachineError
from harl_bench.core.toy import is_toy
from harl_bench.detection.datasets.cityscapes import instance_ids
from harl_bench.detection.metrics.cityscapes import library
from harl_bench.doctor.finding import Finding, from_error
from harl_bench.doctor.sample import spread
from harl_bench.segmentation import datasets
from harl_bench.segmentation.datasets import checks
from harl_bench.segmentation.datasets import voc as voc_data

finding = partial(Finding, "data")
SETS = {  # name of the data set: title, and a recipe for the command
    "voc12aug": ("VOC2012 segmentation", "voc12aug-fcn16s-30k"),
    "cityscapes": ("Cityscapes", "cityscapes-fcn16s-90k"),
}


CITYSCAPES_PARTS = frozenset(ARCHIVES)


def holds_voc(folder: Path) -> bool:
    """Return whether a folder holds VOC2012 with labels of segmentation."""
    base = folder / "VOC2012"
    return (base / voc_data.OWN).is_dir() or (base / voc_data.AUG).is_dir()


def only_segmentation(folder: Path) -> bool:
    """Return whether VOC lies there for segmentation alone, without any annotation."""
    parts = ("VOC2007", "VOC2012/Annotations")
    return holds_voc(folder) and not any((folder / part).is_dir() for part in parts)


def holds_cityscapes(names: set[str]) -> bool:
    """Return whether a folder's sub-folders are one or both halves of Cityscapes."""
    return bool(names & CITYSCAPES_PARTS)


def findings(name: str, root: Path) -> Iterator[Finding]:
    """Check a data set of `segment`: both lists wholly, a sample of images and labels decoded."""
    title, recipe = SETS[name]
    try:
        splits = datasets.read(name, root)
    except BenchError as error:
        yield from_error(title, error)
        return
    command = f"harl-bench segment CKPT --data {quote(str(root))} --recipe {recipe}"
    for split in splits:
        what, seen = f"{title} {split.name}", f"{len(split.items):,} images with labels"
        if split.departure and not is_toy(root):
            seen += f": {split.departure}, so scores do not compare"
            yield finding("warn", what, seen, hint="unpack the archives completely")
        else:
            yield finding("ok", what, seen, command)
        rows = spread(range(len(split.items)))
        try:
            for row in rows:
                checks.require_item(split, row, scored=True)
        except BenchError as error:
            yield from_error(f"{what} sample", error)
        else:
            yield finding("ok", f"{what} sample", f"{len(rows)} images and labels decoded")


def instances(root: Path) -> Iterator[Finding]:
    """Check what `cityscapes` needs besides: instanceIds, and the package of its score."""
    what, base = "Cityscapes instances", home(root)
    if next(base.glob(f"{TRUTH}/*/*/*{INSTANCES}"), None) is None:
        hint = f"unpack {ARCHIVES[TRUTH]} completely"
        yield finding("warn", what, f"no *{INSTANCES}, which cityscapes needs", hint=hint)
        return
    try:
        images = [image for split in PUBLISHED for image, _ in pairs(base, split, INSTANCES)]
        for image in spread(images):
            instance_ids(image)
    except BenchError as error:
        yield from_error(what, error)
        return
    seen = f"{len(images):,} images with instanceIds, {len(spread(images))} decoded"
    try:
        library()
    except MachineError as error:
        yield finding("warn", what, f"{seen}; {error.what}", error.next or "")
    else:
        command = f"harl-bench cityscapes CKPT --data {quote(str(root))}"
        yield finding("ok", what, seen, command)
