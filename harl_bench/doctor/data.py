"""The data sets below a folder, recognised by their layout and read by the very readers the
commands use.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import NamedTuple, TypeVar

from harl_bench.classify.datasets import DATASETS, PUBLISHED, DataSet
from harl_bench.classify.datasets.folder import VAL
from harl_bench.core.errors import BenchError, DataError, explained
from harl_bench.core.images import SUFFIXES, find_images, pair_masks, read_mask, read_rgb
from harl_bench.core.manifest import sha256
from harl_bench.core.masks import manifests_in
from harl_bench.core.toy import is_toy
from harl_bench.detection.datasets import coco, voc
from harl_bench.detection.datasets.sample import Dataset
from harl_bench.doctor.finding import Finding, Level, from_error

# images decoded per split: enough to notice a broken archive, little enough for a network disk
SAMPLE = 24
PARTS = {
    "train2017",
    "val2017",
    "test2017",
    "train",
    *VAL,
    "test",
    "images",
    "masks",
}  # of a set, not sets
ENDING = 4096  # bytes: of compressed images no two end alike
CIFAR = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}  # torchvision's classes, which know each batch's md5
WNID = re.compile(r"n\d{8}")
T = TypeVar("T")


class Split(NamedTuple):
    """A published split: its number of images, its archive, and what unpacks that.

    Sources: host.robots.ox.ac.uk/pascal/VOC (2007 and 2012 statistics), cocodataset.org/#download.
    """

    total: int
    archive: str


VOC = {
    "voc_2007_trainval": Split(5_011, "VOCtrainval_06-Nov-2007.tar"),
    "voc_2007_test": Split(4_952, "VOCtest_06-Nov-2007.tar"),
    "voc_2012_trainval": Split(11_540, "VOCtrainval_11-May-2012.tar"),
}
COCO = {
    "coco_2017_train": Split(118_287, "train2017.zip"),
    "coco_2017_val": Split(5_000, "val2017.zip"),
}


def findings(root: Path, *, deep: bool = False) -> Iterator[Finding]:
    """Every data set in `root` or one of its direct sub-folders.

    Args:
        deep: of the published classification sets, decode every image and compare the archives that
            are there.
    """
    if not root.is_dir():
        yield _found("data", "fail", f"no folder {root}", hint="check --data")
        return
    seen_any = False
    claimed: set[str] = set()  # sub-folders that are part of a set of their parent
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        if folder.name in claimed:
            continue
        kinds = _kinds(folder)
        published = _published_sets(folder)
        kinds += [partial(_published, name, deep=deep) for name in published]
        claimed |= {marker for name in published for marker in PUBLISHED[name].marker}
        if (
            not kinds
            and folder != root
            and not (seen_any and folder.name in PARTS)
            and _holds_images(folder)
        ):
            kinds = [_photos]
        if kinds and is_toy(folder):
            yield _found(
                folder.name, "warn", "generated data: numbers say nothing about any method"
            )
        for kind in kinds:
            seen_any = True
            try:
                yield from kind(folder)
            except (
                BenchError,
                OSError,
            ) as error:  # the data sets that follow are looked at all the same
                yield from_error(folder.name, explained(error))
    if not seen_any and _holds_images(root):
        yield from _photos(root)
    elif not seen_any:
        text = "no VOC, COCO, classification set, train/ with test/, images/ with masks/, or images"
        yield _found(
            "data", "fail", f"{text} in {root}", f"harl-bench toy-data {quote(str(root / 'toy'))}"
        )


def _kinds(folder: Path) -> list[Callable[[Path], Iterator[Finding]]]:
    """Which annotated sets a folder holds, by its sub-folders."""
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    layouts: list[tuple[bool, Callable[[Path], Iterator[Finding]]]] = [
        (bool({"VOC2007", "VOC2012"} & there), _voc),
        ("annotations" in there, _coco),
        ({"train", "test"} <= there, _classes),
        ({"images", "masks"} <= there, _masked),
    ]
    return [kind for holds, kind in layouts if holds]


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _voc(root: Path) -> Iterator[Finding]:
    for name, split in VOC.items():
        _, year, part = name.split("_")
        what, base = f"VOC{year} {part}", root / f"VOC{year}"
        # it holds VOCdevkit/VOC<year>
        command = f"tar -xf {split.archive} -C {quote(str(root))} --strip-components=1"
        if not base.is_dir():
            yield _found(what, "warn", f"no {base}: VOC 07+12 needs it", command)
            continue
        if missing := _missing_of_voc(base, part):
            yield _found(what, "fail", missing, command)
            continue
        yield from _annotated(
            what, partial(voc.read, root, name), split.total, command, toy=is_toy(root)
        )


def _missing_of_voc(base: Path, part: str) -> str:
    """Which ids of a split lack their files; the reader would stop at the first."""
    listed = base / "ImageSets" / "Main" / f"{part}.txt"
    if not listed.is_file():
        there = (
            ", ".join(sorted(p.name for p in listed.parent.glob("*.txt") if "_" not in p.name))
            or "no list"
        )
        return f"no {listed}; there: {there}"
    try:
        rows = voc.entries(base, f"voc_{base.name.removeprefix('VOC')}_{part}", {})
    except DataError:
        return ""  # the reader says it
    lacks = []
    for column, suffix in ((1, "xml"), (2, "jpg")):
        if absent := sorted(row[0] for row in rows if row[column] is None):
            lacks.append(
                f"{len(absent):,} of {len(rows):,} ids have no {suffix}, first {absent[0]}"
            )
    return "; ".join(lacks)


def _coco(root: Path) -> Iterator[Finding]:
    for name, split in COCO.items():
        part = name.rpartition("_")[2]
        where = quote(str(root))  # -n leaves what is there alone
        command = (
            f"unzip -n {split.archive} -d {where} && unzip -n annotations_trainval2017.zip -d "
            f"{where}"
        )
        yield from _annotated(
            f"COCO {part}2017",
            partial(coco.read, root, name, scored=part == "val"),
            split.total,
            command,
            toy=is_toy(root),
        )


def _annotated(
    what: str, read: Callable[[], Dataset], total: int, command: str, *, toy: bool
) -> Iterator[Finding]:
    """One split of VOC or COCO: its annotations wholly, its images in a sample.

    Args:
        total: images of the published split.
        command: unpacks it.
    """
    try:
        dataset = read()
    except BenchError as error:
        refused = from_error(what, error)
        yield _found(
            what,
            "fail",
            refused.seen,
            command if "unpack" in (error.next or "") else "",
            refused.hint,
        )
        return
    count = len(dataset.samples)
    objects = sum(len(sample.classes) for sample in dataset.samples)
    seen = f"{count:,} images, {objects:,} objects"
    if count == total or toy:
        yield _found(what, "ok", seen)
    else:
        how = (
            f"{abs(total - count):,} {'fewer' if count < total else 'more'} than the published "
            f"{total:,}"
        )
        yield _found(what, "warn", f"{seen}: {how}, so scores do not compare", command)
    for fault, number in dataset.faults.items():
        yield _found(what, "warn", f"{number:,} {fault}")
    samples = [dataset.samples[i] for i in _spread(range(count))]
    yield _decoded(
        f"{what} sample", [(Path(s.path), (s.width, s.height)) for s in samples], command
    )


def _classes(root: Path) -> Iterator[Finding]:
    from harl_bench.classify.datasets import folder

    what = f"{root.name} classes"
    try:
        images = folder(root)
    except DataError as error:
        yield from_error(what, error)
        return
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in images.splits.items())
    yield _found(what, "ok", f"{len(images.classes)} classes in every split; {sizes} images")
    yield _decoded(f"{what} sample", [(root / path, None) for path in _spread(images.paths)])
    if twice := _in_two_splits(images):
        (first, second), n = twice[0], len(twice)
        seen = (
            f"{n:,} file{'s' * (n > 1)} of one split {'are' if n > 1 else 'is'} in another, "
            f"too, first {first}"
        )
        yield _found(
            f"{what} leak",
            "fail",
            f"{seen} and {second}",
            hint="a test of what was learnt: remove one of each",
        )


def _in_two_splits(images: DataSet) -> list[tuple[str, str]]:
    """Pairs of files with the same content in different splits; only those of equal size and end
    are read whole.
    """
    files = [
        (split, images.root / images.paths[row])
        for split, rows in images.splits.items()
        for row in rows
    ]
    for alike in (lambda path: path.stat().st_size, _ending, sha256):
        groups: dict[object, list[tuple[str, Path]]] = {}
        for split, path in files:
            groups.setdefault(alike(path), []).append((split, path))
        several = [group for group in groups.values() if len({split for split, _ in group}) > 1]
        files = [file for group in several for file in group]
    pairs = [(group[0], other) for group in several for other in group if other[0] != group[0][0]]
    return [tuple(path.relative_to(images.root).as_posix() for _, path in pair) for pair in pairs]  # type: ignore[misc]


def _ending(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - ENDING))
        return hashlib.sha256(file.read()).digest()


def _published_sets(folder: Path) -> list[str]:
    """Which published classification sets a folder holds, by their sub-folders."""
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    found = [name for name, published in PUBLISHED.items() if there.intersection(published.marker)]
    if {"train", "val"} <= there and any(
        WNID.fullmatch(path.name) for path in (folder / "train").iterdir()
    ):
        found.append("imagenet")
    return found


def _published(name: str, root: Path, *, deep: bool) -> Iterator[Finding]:
    """A published set: lists, classes and counts wholly, images in a sample."""
    published = PUBLISHED[name]
    try:
        found = DATASETS[name](root)
    except DataError as error:
        refused = from_error(name, error)
        yield _found(name, "fail", refused.seen, hint=refused.hint or published.place)
        return
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in found.splits.items())
    seen = f"{len(found.classes)} classes; {sizes} images; fingerprint {found.fingerprint[:12]}"
    if found.departures and not is_toy(root):
        told = f"{seen}: {'; '.join(found.departures)}, so scores do not compare"
        yield _found(name, "warn", told, hint=published.place)
    else:
        yield _found(name, "ok", seen)
    if found.pixels is None:
        paths = found.paths if deep else _spread(found.paths)
        yield _decoded(
            f"{name} {'pictures' if deep else 'sample'}",
            [(found.root / path, None) for path in paths],
        )
    for place, md5 in _checksums(name, root, found.root, deep=deep, whole=not found.departures):
        with open(place, "rb") as file:
            same = hashlib.file_digest(file, "md5").hexdigest() == md5
        what = (
            "is the published file"
            if same
            else f"is another file than the published one (md5 {md5})"
        )
        yield _found(
            place.name, "ok" if same else "fail", what, hint="" if same else "download it again"
        )


def _checksums(
    name: str, root: Path, base: Path, *, deep: bool, whole: bool
) -> Iterator[tuple[Path, str]]:
    """Files with published md5s: archives that are still there, with --deep; files that hold labels
    always, since of CIFAR and Cars nothing else would tell that labels and images were shuffled.
    """
    for archive, md5 in PUBLISHED[name].archives.items():
        for place in dict.fromkeys((root / archive, base / archive)):
            if place.is_file() and (deep or (whole and place.suffix == ".mat")):
                yield place, md5
    if (
        name in CIFAR
        and whole
        and any((base / meta).is_file() for meta in ("batches.meta", "meta"))
    ):
        from torchvision.datasets import cifar

        published = getattr(cifar, CIFAR[name])
        for file, md5 in (*published.train_list, *published.test_list):
            yield base / file, md5


def _masked(root: Path) -> Iterator[Finding]:
    """Images and masks of the same names, sizes equal on a sample."""
    what, images, masks = f"{root.name} masks", root / "images", root / "masks"
    try:
        paths, files = find_images(images), [path.as_posix() for path in find_images(masks)]
        mask_of = pair_masks([path.as_posix() for path in paths], files, masks)
    except DataError as error:
        yield from_error(what, error)
        return
    paired = [path for path in paths if path.as_posix() in mask_of]
    # Masks without our manifest are the user's own: they are not to be written over.
    target = masks if manifests_in(masks) else root / "masks-drfi-lite"
    command = f"harl-bench masks make {quote(str(images))} --out {quote(str(target))}"
    if len(paired) < len(paths):
        lacking = next(path for path in paths if path.as_posix() not in mask_of)
        seen = (
            f"{len(paths) - len(paired):,} of {len(paths):,} images have no mask, first {lacking}"
        )
        yield _found(what, "warn" if paired else "fail", seen, command)
    else:
        yield _found(what, "ok", f"{len(paths):,} images, each with its mask")
    for path in _spread(paired):
        try:
            read_mask(masks / mask_of[path.as_posix()], read_rgb(images / path).size)
        except DataError as error:
            yield from_error(f"{what} sample", error)
            return
    if paired:
        yield _found(f"{what} sample", "ok", f"{len(_spread(paired))} decoded, sizes agree")


def _photos(root: Path) -> Iterator[Finding]:
    paths = find_images(root)
    yield _found(f"{root.name} photos", "ok", f"{len(paths):,} images")
    yield _decoded(f"{root.name} sample", [(root / path, None) for path in _spread(paths)])


def _decoded(
    what: str, images: Sequence[tuple[Path, tuple[int, int] | None]], command: str = ""
) -> Finding:
    """Decode images and compare them with the sizes their annotations state."""
    for path, size in images:
        try:
            seen = read_rgb(path, exif=size is not None).size  # as the detectors' data are read
        except DataError as error:
            refused = from_error(what, error)
            return _found(what, "fail", refused.seen, command, refused.hint)
        if size is not None and seen != size:
            text = f"{path} is {seen[0]} x {seen[1]}, annotated {size[0]} x {size[1]}"
            return _found(
                what, "fail", text, command, "images and annotations are not of the same release"
            )
    return _found(what, "ok", f"{len(images)} decoded")


def _spread(items: Sequence[T]) -> list[T]:
    """At most SAMPLE items, evenly over the whole: the ends of an archive are where a broken copy
    shows.
    """
    last = len(items) - 1
    return (
        [items[round(i * last / (SAMPLE - 1))] for i in range(SAMPLE)]
        if len(items) > SAMPLE
        else list(items)
    )


def _found(what: str, level: Level, seen: str, next: str = "", hint: str = "") -> Finding:
    return Finding("data", level, what, seen, next, hint)
