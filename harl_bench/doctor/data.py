"""The data sets below a folder, recognised by layout, read by the readers the commands use."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

from harl_bench.classify.datasets import PUBLISHED
from harl_bench.classify.datasets.folder import VAL
from harl_bench.core import cityscapes
from harl_bench.core.errors import BenchError, DataError, explained
from harl_bench.core.images import SUFFIXES, find_images, read_mask, read_rgb
from harl_bench.core.masks import manifests_in, pair_masks
from harl_bench.core.nearby import TREE
from harl_bench.core.toy import is_toy
from harl_bench.detection.datasets import coco, coco_layout, voc
from harl_bench.detection.datasets.sample import Dataset
from harl_bench.detection.names import IMAGES
from harl_bench.doctor import segmentation
from harl_bench.doctor.classification import classes, published, published_sets, sub_folders
from harl_bench.doctor.finding import Finding, from_error
from harl_bench.doctor.sample import decoded, spread

PARTS = {"train2017", "val2017", "test2017", "train", *VAL, "test", "images", "masks"}  # no sets
PETS = "annotations/trainval.txt"  # of Oxford-IIIT Pets, beside images/
Check = Callable[[Path], Iterator[Finding]]
finding = partial(Finding, "data")


def findings(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    """Yield what is seen of every data set in `root`, its sub-folders and the others of TREE.

    The last line of a set without fault has the command that measures with it.

    Args:
        deep: of published classification sets, decode every image and compare the archives.
    """
    if not root.is_dir():
        yield finding("fail", "data", f"no folder {root}", hint="check --data")
        return
    parts, empty = set[str](), True  # parts: sub-folders that belong to a set of their parent
    marked = set[Path]()  # folders of generated data that were named
    for folder in _folders(root):
        if folder.name in parts:
            continue
        if not _listed(folder):
            hint = "fix its permissions, if it holds a data set"
            yield finding("warn", folder.name, f"cannot list {folder}", hint=hint)
            continue
        checks = [("", check) for check in _layouts(folder)]
        if segmentation.holds_cityscapes(sub_folders(folder)):
            parts.update(segmentation.CITYSCAPES_PARTS)
        for name in published_sets(folder):
            checks.append((name, partial(published, name, deep=deep)))
            parts.update(marker.partition("/")[0] for marker in PUBLISHED[name].marker)
        new = folder != root and (empty or folder.name not in PARTS)
        if not checks and new and _holds_images(folder):
            checks = [("", _photos)]
        if checks and is_toy(folder) and folder.parent not in marked:
            marked.add(folder)
            seen = "generated data: numbers say nothing about any method"
            yield finding("warn", folder.name, seen)
        empty, failed = empty and not checks, False
        for name, check in checks:
            if failed and name == "voc2007-cls":  # images of VOC's check: one fault, one line
                continue
            for one in _checked(check, folder, _command(name, check, folder)):
                failed = failed or one.level == "fail"
                yield one
    if empty and _holds_images(root):
        yield from _photos(root)
    elif empty:
        text = "no VOC, COCO, Cityscapes, classification set, train/ with test/, "
        text += "images/ with masks/, or images"
        command = f"harl-bench toy-data {quote(str(root / 'toy'))}"
        yield finding("fail", "data", f"{text} in {root}", command)


def _checked(check: Check, folder: Path, command: str) -> Iterator[Finding]:
    """Yield what a check sees; where nothing fails, its last line has the command."""
    last: Finding | None = None
    failed = False
    try:
        for one in check(folder):
            if last:
                yield last
            last, failed = one, failed or one.level == "fail"
    except (BenchError, OSError) as error:  # the next set is looked at all the same
        if last:
            yield last
        last, failed = from_error(folder.name, explained(error)), True
    if last:
        ready = not failed and last.level == "ok" and not last.next
        yield replace(last, next=command) if ready else last


def _folders(root: Path) -> list[Path]:
    """Return the folders that may hold a data set: `root`, its own, and those below TREE's."""
    places = {"voc": voc.HOMES, "cityscapes": cityscapes.HOMES}
    deeper = (root / name / home for kind in places for name in TREE[kind] for home in places[kind])
    inside = [path for path in root.iterdir() if path.is_dir()]
    return [root, *sorted({*inside, *(path for path in deeper if path.is_dir())} - {root})]


def _listed(folder: Path) -> bool:
    """Return whether a folder may be read: `lost+found` on a disk of data may not."""
    try:
        next(folder.iterdir(), None)
    except OSError:
        return False
    return True


def _command(name: str, check: Check, folder: Path) -> str:
    """Return the command that measures with a set; "" if it lacks a part, or says it itself."""
    data = f"CKPT --data {quote(str(folder))}"
    if name:
        return f"harl-bench classify {data} --dataset {name}"
    if check is _voc and not all((folder / year).is_dir() for year in ("VOC2007", "VOC2012")):
        return ""
    commands = {_voc: "voc", _coco: "coco", classes: "classify"}
    return f"harl-bench {commands[check]} {data}" if check in commands else ""


def _layouts(folder: Path) -> list[Check]:
    """Return the checks of the sets that a folder holds, by its sub-folders."""
    names = sub_folders(folder)
    layouts = {
        _voc: names & {"VOC2007", "VOC2012"} and not segmentation.only_segmentation(folder),
        _voc_segmentation: segmentation.holds_voc(folder),
        _cityscapes: segmentation.holds_cityscapes(names),
        _coco: "annotations" in names and not (folder / PETS).is_file(),
        classes: names >= {"train", "test"},
        _masked: names >= {"images", "masks"},
    }
    return [check for check, matches in layouts.items() if matches]


def _voc_segmentation(root: Path) -> Iterator[Finding]:
    yield from segmentation.findings("voc12aug", root)


def _cityscapes(root: Path) -> Iterator[Finding]:
    yield from segmentation.findings("cityscapes", root)
    yield from segmentation.instances(root)


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _voc(root: Path) -> Iterator[Finding]:
    for name, archive in voc.ARCHIVES.items():
        _, year, part = name.split("_")
        what, base = f"VOC{year} {part}", root / f"VOC{year}"
        # the archive holds VOCdevkit/VOC<year>
        unpack = f"tar -xf {archive} -C {quote(str(root))} --strip-components=1"
        if not base.is_dir():
            yield finding("warn", what, f"no {base}: VOC 07+12 needs it", unpack)
        elif missing := _missing_of_voc(base, name):
            yield finding("fail", what, missing, unpack)
        else:
            read = partial(voc.read, root, name)
            yield from _annotated(what, read, IMAGES[name], unpack, toy=is_toy(root))


def _missing_of_voc(base: Path, name: str) -> str:
    """Return how many ids of a split lack files, "" for none; the reader stops at the first."""
    path = base / "ImageSets" / "Main" / f"{name.split('_')[2]}.txt"
    if not path.is_file():
        lists = sorted(other.name for other in path.parent.glob("*.txt") if "_" not in other.name)
        return f"no {path}; there: {', '.join(lists) or 'no list'}"
    try:
        rows = voc.entries(base, name, {})
    except DataError:
        return ""  # the reader says it
    texts = []
    for column, suffix in ((1, "xml"), (2, "jpg")):
        if absent := [row[0] for row in rows if row[column] is None]:
            count = f"{len(absent):,} of {len(rows):,} ids"
            texts.append(f"{count} have no {suffix}, first {min(absent)}")
    return "; ".join(texts)


def _coco(root: Path) -> Iterator[Finding]:
    folder = quote(str(root))
    for split, archive in coco_layout.ARCHIVES.items():
        part = split.rpartition("_")[2]
        archives = (archive, "annotations_trainval2017.zip")
        unpack = " && ".join(f"unzip -n {name} -d {folder}" for name in archives)  # -n: keep files
        read = partial(coco.read, root, split, scored=part == "val")
        what, total = f"COCO {part}2017", IMAGES[split]
        yield from _annotated(what, read, total, unpack, toy=is_toy(root))


def _annotated(
    what: str, read: Callable[[], Dataset], total: int, unpack: str, *, toy: bool
) -> Iterator[Finding]:
    """Check one split of `total` images: all its annotations, a sample of its images."""
    try:
        dataset = read()
    except BenchError as error:
        yield from_error(what, error, unpack if "unpack" in (error.next or "") else "")
        return
    count = len(dataset.samples)
    seen = f"{count:,} images, {sum(len(sample.classes) for sample in dataset.samples):,} objects"
    if count == total or toy:
        yield finding("ok", what, seen)
    else:
        difference = f"{abs(total - count):,} {'fewer' if count < total else 'more'}"
        seen += f": {difference} than the published {total:,}, so scores do not compare"
        yield finding("warn", what, seen, unpack)
    for fault, number in dataset.faults.items():
        yield finding("warn", what, f"{number:,} {fault}")
    samples = [dataset.samples[i] for i in spread(range(count))]
    yield decoded(f"{what} sample", [(Path(s.path), (s.width, s.height)) for s in samples], unpack)


def _masked(root: Path) -> Iterator[Finding]:
    """Check images and masks of the same names, whose sizes are equal on a sample."""
    what, images, masks = f"{root.name} masks", root / "images", root / "masks"
    try:
        paths = [path.as_posix() for path in find_images(images)]
        mask_of = pair_masks(paths, [path.as_posix() for path in find_images(masks)], masks)
    except DataError as error:
        yield from_error(what, error)
        return
    paired = [path for path in paths if path in mask_of]
    # Masks without our manifest are the user's own: they are not to be written over.
    target = masks if manifests_in(masks) else root / "masks-drfi-lite"
    command = f"harl-bench masks make {quote(str(images))} --out {quote(str(target))}"
    if len(paired) < len(paths):
        first = next(path for path in paths if path not in mask_of)
        seen = f"{len(paths) - len(paired):,} of {len(paths):,} images have no mask"
        yield finding("warn" if paired else "fail", what, f"{seen}, first {first}", command)
    else:
        yield finding("ok", what, f"{len(paths):,} images, each with its mask")
    sample = spread(paired)
    try:
        for path in sample:
            read_mask(masks / mask_of[path], read_rgb(images / path).size)
    except DataError as error:
        yield from_error(f"{what} sample", error)
        return
    if sample:
        yield finding("ok", f"{what} sample", f"{len(sample)} decoded, sizes agree")


def _photos(root: Path) -> Iterator[Finding]:
    paths = find_images(root)
    yield finding("ok", f"{root.name} photos", f"{len(paths):,} images")
    yield decoded(f"{root.name} sample", [(root / path, None) for path in spread(paths)])
