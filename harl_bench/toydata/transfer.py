"""Tiny copies of the twelve classification sets, each in the layout of its authors.

All show the same images of one shape each, except VOC2007, whose images show several.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

from harl_bench.toydata import matlab, voc
from harl_bench.toydata.folders import RADII
from harl_bench.toydata.scene import compose
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

CIFAR_PX = 32
SPLITS = ("train", "val", "test")


class Shot(NamedTuple):
    """An image of the class NAMES[label]."""

    path: Path
    label: int
    split: str  # train, val or test


def write(root: Path, counts: Mapping[str, int], *, side_px: int, random: Random) -> None:
    """Write every layout below `root`, `counts[split]` images a class of train, val and test.

    A set without an official val has those images in train.
    """
    shots = []
    with TemporaryDirectory() as pool:
        for split, count in counts.items():
            for label, name in enumerate(NAMES):
                for i in range(count):
                    path = Path(pool) / f"{split}-{label}-{i}.jpg"
                    compose(path, [name], side_px, random, radii=RADII, gray=True)
                    shots.append(Shot(path, label, split))
        for layout in LAYOUTS:
            layout(root, shots)
    several = {split: count * len(NAMES) for split, count in counts.items()}
    voc.write(root / "VOCdevkit", 2007, several, side_px=side_px, random=random)


def _food101(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "food-101"
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for i, shot in enumerate(shots):
        name = f"{NAMES[shot.label]}/{1000 + i}"
        _copy(shot, base / "images" / f"{name}.jpg")
        lists[_trained(shot)].setdefault(NAMES[shot.label], []).append(name)
    for split, members in lists.items():
        _text(base / "meta" / f"{split}.json", json.dumps(members))


def _cifar10(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "cifar-10-batches-bin"
    records = {"train": bytearray(), "test": bytearray()}
    for shot in shots:
        records[_trained(shot)] += bytes([shot.label]) + _planes(shot)
    _text(base / "batches.meta.txt", "".join(f"{name}\n" for name in NAMES))
    (base / "test_batch.bin").write_bytes(records["test"])
    size, count = 1 + 3 * CIFAR_PX**2, sum(shot.split != "test" for shot in shots)
    bounds = [size * (count * k // 5) for k in range(6)]
    for k in range(5):
        (base / f"data_batch_{k + 1}.bin").write_bytes(records["train"][bounds[k] : bounds[k + 1]])


def _cifar100(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "cifar-100-binary"
    records = {"train": bytearray(), "test": bytearray()}
    for shot in shots:
        records[_trained(shot)] += bytes([shot.label // 2, shot.label]) + _planes(shot)
    _text(base / "fine_label_names.txt", "".join(f"{name}\n" for name in NAMES))
    for split, content in records.items():
        (base / f"{split}.bin").write_bytes(content)


def _birdsnap(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "birdsnap"
    species = [f"{label + 1}\t{name}\t{name}\t{name}" for label, name in enumerate(NAMES)]
    images, tested = ["url\tmd5\tpath\tspecies_id"], ["path"]
    for i, shot in enumerate(shots):
        path = f"{NAMES[shot.label]}/{i:06d}.jpg"
        _copy(shot, base / "download" / "images" / path)
        images.append(f"-\t-\t{path}\t{shot.label + 1}")
        tested += [path] if shot.split == "test" else []
    _lines(base / "species.txt", ["id\tcommon\tscientific\tdir", *species])
    _lines(base / "images.txt", images)
    _lines(base / "test_images.txt", tested)


def _sun397(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "SUN397"
    # The reader knows the set by its class abbey; one name of the original has two levels.
    names = ["/a/abbey", "/a/apartment_building/outdoor", "/b/bakery", "/c/castle", "/y/yard"]
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for i, shot in enumerate(shots):
        path = f"{names[shot.label]}/sun_{i:04d}.jpg"
        _copy(shot, base / path[1:])
        lists[_trained(shot)].append(path)
    _lines(base / "ClassName.txt", names)
    _lines(base / "Partitions" / "Training_01.txt", lists["train"])
    _lines(base / "Partitions" / "Testing_01.txt", lists["test"])


def _cars(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "stanford_cars"
    matlab.write(base / "devkit" / "cars_meta.mat", {"class_names": matlab.cells(NAMES)})
    for split, path in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        own = [shot for shot in shots if _trained(shot) == split]
        files = [f"{i + 1:05d}.jpg" for i in range(len(own))]
        for file, shot in zip(files, own, strict=True):
            _copy(shot, base / f"cars_{split}" / file)
        labels = [shot.label + 1 for shot in own]
        notes = matlab.records({"class": labels, "fname": files})
        matlab.write(base / path, {"annotations": notes})


def _aircraft(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    for i, shot in enumerate(shots):
        _copy(shot, base / "images" / f"{i:07d}.jpg")
    _lines(base / "variants.txt", NAMES)
    for split in SPLITS:
        rows = [
            f"{i:07d} {NAMES[shot.label]}" for i, shot in enumerate(shots) if shot.split == split
        ]
        _lines(base / f"images_variant_{split}.txt", rows)


def _dtd(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "dtd" / "dtd"
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i, shot in enumerate(shots):
        name = NAMES[shot.label]
        lists[shot.split].append(f"{name}/{name}_{i:04d}.jpg")
        _copy(shot, base / "images" / lists[shot.split][-1])
    for split, paths in lists.items():
        _lines(base / "labels" / f"{split}1.txt", paths)


def _pets(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "oxford-iiit-pet"
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for i, shot in enumerate(shots):
        name = f"{NAMES[shot.label]}_{i + 1}"
        _copy(shot, base / "images" / f"{name}.jpg")
        split = "test" if shot.split == "test" else "trainval"
        lists[split].append(f"{name} {shot.label + 1} 1 1")
    for split, rows in lists.items():
        _lines(base / "annotations" / f"{split}.txt", rows)


def _caltech101(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "caltech-101" / "101_ObjectCategories"
    counts = dict.fromkeys(NAMES, 0)
    for shot in shots:
        name = NAMES[shot.label]
        counts[name] += 1
        _copy(shot, base / name / f"image_{counts[name]:04d}.jpg")
    _copy(shots[0], base / "BACKGROUND_Google" / "image_0001.jpg")


def _flowers(root: Path, shots: Sequence[Shot]) -> None:
    base = root / "flowers-102"
    for i, shot in enumerate(shots):
        _copy(shot, base / "jpg" / f"image_{i + 1:05d}.jpg")
    labels = [shot.label + 1 for shot in shots]
    rows = {
        split: [i + 1 for i, shot in enumerate(shots) if shot.split == split] for split in SPLITS
    }
    matlab.write(base / "imagelabels.mat", {"labels": np.array([labels])})
    keys = {"trnid": "train", "valid": "val", "tstid": "test"}
    splits = {key: np.array([rows[split]]) for key, split in keys.items()}
    matlab.write(base / "setid.mat", splits)


LAYOUTS: tuple[Callable[[Path, Sequence[Shot]], None], ...] = (
    _food101,
    _cifar10,
    _cifar100,
    _birdsnap,
    _sun397,
    _cars,
    _aircraft,
    _dtd,
    _pets,
    _caltech101,
    _flowers,
)


def _trained(shot: Shot) -> str:
    return "test" if shot.split == "test" else "train"


def _planes(shot: Shot) -> bytes:
    """Return the red, green and blue plane, as CIFAR stores an image."""
    small = Image.open(shot.path).convert("RGB").resize((CIFAR_PX, CIFAR_PX))
    return np.asarray(small).transpose(2, 0, 1).tobytes()


def _copy(shot: Shot, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shot.path, path)


def _lines(path: Path, lines: Sequence[str]) -> None:
    _text(path, "".join(f"{line}\n" for line in lines))


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
