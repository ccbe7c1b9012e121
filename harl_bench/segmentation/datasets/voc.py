"""PASCAL VOC 2012 with the extra labels of SBD (Hariharan et al. 2011), from the original archives.

train_aug2012 is (SBD train + SBD val + VOC train) minus VOC val: 10,582 images. VOC's own label is
taken where both have one. The extra labels are `VOC2012/SegmentationClassAug/*.png`, palette or
plain gray, or SBD's own `cls/*.mat`.
"""

import os
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import DataError
from harl_bench.core.nearby import belongs
from harl_bench.core.palette import voc_palette
from harl_bench.core.plain import read_text
from harl_bench.segmentation.confusion import IGNORED
from harl_bench.segmentation.datasets.dataset import OUTSIDE, Item, Split, require_disjoint

CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
)
NAMES = tuple(CLASSES.split())
TABLE = tuple(v if v < len(NAMES) or v == IGNORED else OUTSIDE for v in range(256))
PUBLISHED = {"train": 1_464, "train_aug": 10_582, "val": 1_449}
ARCHIVE = "VOCtrainval_11-May-2012.tar"
SBD_ARCHIVE = "benchmark.tgz (SBD)"
HOMES = ("VOC2012", "VOCdevkit/VOC2012", "")  # of VOC2012, in the folder of the data
AUG, OWN, IMAGES = "SegmentationClassAug", "SegmentationClass", "JPEGImages"
LISTS = ("trainaug.txt", "train_aug.txt", "aug.txt")  # of the extra labels, in the wild
SBD_FOLDERS = ("SBD", "SBD/dataset", "benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset")


def read(root: Path, *, augmented: bool) -> tuple[Split, Split]:
    """Return (train, val) of VOC2012.

    Args:
        root: holds VOC2012/ (or VOCdevkit/VOC2012/), and SBD/ or benchmark_RELEASE/; or is VOC2012.
        augmented: train on train_aug2012 instead of the 1,464 images of train.

    Raises:
        DataError: a folder, list, image or label is missing, or train and val share an image.
    """
    base = home(root)
    folders = {name: _files(base / name, ARCHIVE) for name in (IMAGES, OWN)}
    train, val = (_ids(base / "ImageSets" / "Segmentation" / f"{n}.txt") for n in ("train", "val"))
    labels = {i: base / OWN / f"{i}.png" for i in train}
    name = "train"
    if augmented:
        name, held = "train_aug", set(val)
        extra = {i: path for i, path in extra_labels(root, base).items() if i not in held}
        labels = extra | labels
    _require(folders[OWN], ".png", [*train, *val], base / OWN, f"unpack {ARCHIVE} completely")
    hint = f"unpack {ARCHIVE} completely"
    _require(folders[IMAGES], ".jpg", [*labels, *val], base / IMAGES, hint)
    own = {i: base / OWN / f"{i}.png" for i in val}
    parts = (
        _split(name, root, base, {i: labels[i] for i in sorted(labels)}),
        _split("val", root, base, own),
    )
    require_disjoint(*parts)
    return parts


def holds(folder: Path) -> bool:
    """Return whether VOC2012 with labels of segmentation lies in a folder, or is it."""
    return any((folder / name / OWN).is_dir() for name in HOMES)


def home(root: Path) -> Path:
    """Return the folder VOC2012 that `root` holds or is.

    Raises:
        DataError: there is none.
    """
    for folder in (root / name for name in HOMES):
        if (folder / IMAGES).is_dir() or (folder / "ImageSets").is_dir():
            return folder
    near = next(iter([*root.glob("*/VOC2012"), *root.glob("*/*/VOC2012")]), None)
    hint = belongs(root, "segment", ARCHIVE)
    hint = f"--data {quote(str(near.parent))}" if near else hint
    raise DataError("VOC2012 is missing", where=root, seen=_listing(root), next=hint)


def extra_labels(root: Path, base: Path) -> dict[str, Path]:
    """Return the path of each extra label by image id; SegmentationClassAug before SBD.

    Raises:
        DataError: there are no extra labels, or a listed one is missing.
    """
    folder = base / AUG
    if folder.is_dir():
        files = _files(folder, AUG)
        places = (base / "ImageSets" / "Segmentation", base / "ImageSets", base, folder)
        lists = [path / name for path in places for name in LISTS if (path / name).is_file()]
        ids = _ids(lists[0]) if lists else sorted(f[:-4] for f in files if f.endswith(".png"))
        own = _files(base / OWN, ARCHIVE)  # a list may name VOC's images, whose labels are there
        ids = [i for i in ids if f"{i}.png" in files or f"{i}.png" not in own]
        _require(files, ".png", ids, folder, "complete the folder, or take the ids out of the list")
        return {i: folder / f"{i}.png" for i in ids}
    sbd = sbd_home(root, base)
    if sbd is None:
        raise DataError(
            "no extra labels: train_aug2012 needs SegmentationClassAug or SBD",
            where=root,
            seen=_listing(root),
            next=f"unpack {SBD_ARCHIVE} there, or train on VOC's 1,464 images: dataset=voc12",
        )
    ids = [i for name in ("train", "val") for i in _ids(sbd / f"{name}.txt", SBD_ARCHIVE)]
    _require(_files(sbd / "cls", SBD_ARCHIVE), ".mat", ids, sbd / "cls", f"unpack {SBD_ARCHIVE}")
    return {i: sbd / "cls" / f"{i}.mat" for i in dict.fromkeys(ids)}


def sbd_home(root: Path, base: Path) -> Path | None:
    """Return SBD's folder with cls/, train.txt and val.txt, None if there is none."""
    nearby = [root, base.parent]
    if base.parent.name == "VOCdevkit":
        nearby.append(base.parent.parent)
    places = (near / name for near in nearby for name in SBD_FOLDERS)
    return next((place for place in places if (place / "cls").is_dir()), None)


def _split(name: str, root: Path, base: Path, labels: dict[str, Path]) -> Split:
    items = tuple(Item(str(base / IMAGES / f"{i}.jpg"), str(path)) for i, path in labels.items())
    colors = voc_palette()[: len(NAMES)]
    return Split(name, root, base, NAMES, items, TABLE, colors, PUBLISHED[name])


def _files(folder: Path, archive: str) -> set[str]:
    if not folder.is_dir():
        raise DataError(
            f"{folder.parent.name} has no {folder.name} folder",
            where=folder.parent,
            seen=_listing(folder.parent),
            next=f"unpack {archive} there",
        )
    return {name for name in os.listdir(folder) if not name.startswith(".")}


def _require(files: set[str], suffix: str, ids: list[str], folder: Path, hint: str) -> None:
    """Raise a DataError for ids without their file."""
    absent = [i for i in ids if f"{i}{suffix}" not in files]
    if absent:
        kind = "image" if suffix == ".jpg" else "label"
        raise DataError(
            f"{len(absent):,} of {len(ids):,} listed ids have no {kind}",
            where=folder / f"{absent[0]}{suffix}",
            seen=f"{len(files):,} files in {folder.name}",
            next=hint,
        )


def _ids(path: Path, archive: str = ARCHIVE) -> list[str]:
    """Return the image ids of a list: a stem, or a path, first on each line.

    Raises:
        DataError: missing, unreadable or empty.
    """
    if not path.is_file():
        hint = f"unpack {archive} completely"
        seen = _listing(path.parent) if path.parent.is_dir() else "no such folder"
        raise DataError(f"the list {path.name} is missing", where=path, seen=seen, next=hint)
    try:
        lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        hint = "save it as plain text, one id a line"
        raise DataError("cannot read list", where=path, seen=error, next=hint) from None
    if not lines:
        raise DataError("the list is empty", where=path, next="one image id a line")
    return list(dict.fromkeys(Path(words[0]).stem for words in lines))


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") or "an empty folder"
