"""Classification sets: folders of classes, and the published sets beside what is published."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harl_bench.classify.datasets import DATASETS, PUBLISHED, DataSet
from harl_bench.core.errors import DataError
from harl_bench.core.manifest import sha256
from harl_bench.core.toy import is_toy
from harl_bench.doctor.finding import Finding, from_error
from harl_bench.doctor.sample import decoded, spread

ENDING = 4096  # bytes: of compressed images no two end alike
CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # torchvision's, which know each batch's md5
WNID = re.compile(r"n\d{8}")
finding = partial(Finding, "data")


def classes(root: Path) -> Iterator[Finding]:
    """Check a folder of splits, each with one folder a class."""
    what = f"{root.name} classes"
    try:
        dataset = DATASETS["folder"](root)
    except DataError as error:
        yield from_error(what, error)
        return
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in dataset.splits.items())
    yield finding("ok", what, f"{len(dataset.classes)} classes in every split; {sizes} images")
    yield decoded(f"{what} sample", [(root / path, None) for path in spread(dataset.paths)])
    if pairs := _in_two_splits(dataset):
        files, are = ("files", "are") if len(pairs) > 1 else ("file", "is")
        seen = f"{len(pairs):,} {files} of one split {are} in another, too"
        seen += f", first {pairs[0][0]} and {pairs[0][1]}"
        hint = "a test of what was learnt: remove one of each"
        yield finding("fail", f"{what} leak", seen, hint=hint)


def _in_two_splits(dataset: DataSet) -> list[tuple[str, str]]:
    """Return pairs of equal files in different splits, read whole where size and end agree."""
    groups = [[(split, dataset.paths[i]) for split, rows in dataset.splits.items() for i in rows]]
    for digest in (_size_and_end, sha256):
        same: dict[object, list[tuple[str, str]]] = {}
        for split, path in itertools.chain(*groups):
            same.setdefault(digest(dataset.root / path), []).append((split, path))
        groups = [group for group in same.values() if len({split for split, _ in group}) > 1]
    pairs = ((group[0], other) for group in groups for other in group[1:])
    return [(first[1], other[1]) for first, other in pairs if first[0] != other[0]]


def _size_and_end(path: Path) -> tuple[int, bytes]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - ENDING))
        return size, hashlib.sha256(file.read()).digest()


def published_sets(folder: Path) -> list[str]:
    """Return the names of the sets that a folder holds or is, by their markers."""
    names, own = sub_folders(folder), folder.resolve().name
    present = [
        name
        for name, about in PUBLISHED.items()
        if any(marker == own or (folder / marker).exists() for marker in about.marker)
    ]
    imagenet = names >= {"train", "val"} and any(map(WNID.fullmatch, sub_folders(folder / "train")))
    return [*present, "imagenet"] if imagenet else present


def published(name: str, root: Path, *, deep: bool) -> Iterator[Finding]:
    """Check a published set: lists, classes and counts wholly, its images in a sample."""
    hint = PUBLISHED[name].place
    try:
        dataset = DATASETS[name](root)
    except DataError as error:
        refused = from_error(name, error)
        yield finding("fail", name, refused.seen, hint=refused.hint or hint)
        return
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in dataset.splits.items())
    seen = f"{len(dataset.classes)} classes; {sizes} images"
    seen += f"; fingerprint {dataset.fingerprint[:12]}"
    if dataset.departures and not is_toy(root):
        text = f"{seen}: {'; '.join(dataset.departures)}, so scores do not compare"
        yield finding("warn", name, text, hint=hint)
    else:
        yield finding("ok", name, seen)
    if dataset.pixels is None:
        what, paths = ("images", dataset.paths) if deep else ("sample", spread(dataset.paths))
        yield decoded(f"{name} {what}", [(dataset.root / path, None) for path in paths])
    for path, md5 in _checksums(name, root, dataset, deep=deep):
        with open(path, "rb") as file:
            same = hashlib.file_digest(file, "md5").hexdigest() == md5
        text = f"is another file than the published one (md5 {md5})"
        again = finding("fail", path.name, text, hint="download it again")
        yield finding("ok", path.name, "is the published file") if same else again


def _checksums(
    name: str, root: Path, dataset: DataSet, *, deep: bool
) -> Iterator[tuple[Path, str]]:
    """Yield files that are to have a published md5: with `deep` the archives that are still there.

    The labels of a whole set are always compared. In CIFAR and Cars nothing else tells that labels
    and images were shuffled.
    """
    whole, base = not dataset.departures, dataset.root
    for archive, md5 in PUBLISHED[name].archives.items():
        for path in dict.fromkeys((root / archive, base / archive)):
            if path.is_file() and (deep or (whole and path.suffix == ".mat")):
                yield path, md5
    pickled = (base / "batches.meta").is_file() or (base / "meta").is_file()
    if name in CIFAR and whole and pickled:
        from torchvision.datasets import cifar

        published = getattr(cifar, CIFAR[name])
        for file, md5 in (*published.train_list, *published.test_list):
            yield base / file, md5


def sub_folders(folder: Path) -> set[str]:
    """Return the names of the folders in a folder."""
    return {path.name for path in folder.iterdir() if path.is_dir()}
