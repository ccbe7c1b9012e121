"""Tiny VOC2012 + SBD and Cityscapes trees for tests: rectangles of two classes, true formats."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from harl_bench.core.palette import voc_palette

SIZES = [(60, 44), (44, 60), (52, 52)]  # width, height
CAT, DOG = 8, 12
CAR, SKY = 26, 23  # ids of Cityscapes, classes 13 and 10


def size_of(k: int) -> tuple[int, int]:
    return SIZES[k % len(SIZES)]


def label_of(k: int, values: tuple[int, int] = (CAT, DOG), ground: int = 0) -> np.ndarray:
    """Return a label by formula: ground, one rectangle of each value, and a void edge."""
    width, height = size_of(k)
    label = np.full((height, width), ground, np.uint8)
    label[5 + k % 4 : height // 2, 4 : width - 8] = values[0]
    label[height // 2 : -6, 10 : width - 4 - k % 5] = values[1]
    return label


def draw(path: Path, label: np.ndarray, seed: int) -> None:
    """Write an image whose colors follow its label, losslessly for any suffix."""
    noise = np.random.default_rng(seed).integers(0, 60, (*label.shape, 3))
    colors = np.stack([label * 7 % 190, label * 13 % 190, label * 29 % 190], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + colors).astype(np.uint8)).save(path, format="PNG")


def save_palette(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    image.putpalette([value for color in voc_palette() for value in color])
    image.save(path)


def save_mat(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": label, "CategoriesPresent": np.unique(label)}})


def ids(split: str, n: int) -> list[str]:
    first = {"train": 100, "val": 200, "extra": 300}[split]
    return [f"2008_{first + k:06d}" for k in range(n)]


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def voc(root: Path, kind: str = "palette", train: int = 3, val: int = 3, extra: int = 4) -> Path:
    """Write VOC2012 with extra labels: "palette" or "gray" SegmentationClassAug, or "sbd".

    The extra ids include one of VOC's own and one of its val, as SBD's do. Own labels have a
    border of 255, which the extra label of the same image lacks.
    """
    base = root / "VOC2012"
    numbers = {}
    for split, n in (("train", train), ("val", val), ("extra", extra)):
        for name in ids(split, n):
            numbers[name] = len(numbers)
            label = label_of(numbers[name])
            draw(base / "JPEGImages" / f"{name}.jpg", label, numbers[name])
            if split != "extra":
                own = label.copy()
                own[:2] = 255
                save_palette(base / "SegmentationClass" / f"{name}.png", own)
    for split, n in (("train", train), ("val", val)):
        write_list(base / "ImageSets/Segmentation" / f"{split}.txt", ids(split, n))
    both = [*ids("extra", extra), ids("train", 1)[0], ids("val", 1)[0]]
    for name in both:
        label = label_of(numbers[name])
        if kind == "sbd":
            save_mat(root / "SBD/dataset/cls" / f"{name}.mat", label)
        elif kind == "gray":
            (base / "SegmentationClassAug").mkdir(exist_ok=True)
            Image.fromarray(label).save(base / "SegmentationClassAug" / f"{name}.png")
        elif kind == "palette":
            save_palette(base / "SegmentationClassAug" / f"{name}.png", label)
    if kind == "sbd":
        write_list(root / "SBD/dataset/train.txt", both[:2])
        write_list(root / "SBD/dataset/val.txt", both[2:])
    return root


def cityscapes(root: Path, train: int = 3, val: int = 2) -> Path:
    """Write both halves, with ids that are not evaluated (2) among those that are."""
    for split, n, city in (("train", train, "aachen"), ("val", val, "munster")):
        for k in range(n):
            ids = label_of(k, (CAR, SKY), ground=7)
            ids[:3] = 2
            stem = f"{split}/{city}/{city}_{k:06d}_000019"
            draw(root / "leftImg8bit" / f"{stem}_leftImg8bit.png", ids, k)
            path = root / "gtFine" / f"{stem}_gtFine_labelIds.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ids).save(path)
    return root
