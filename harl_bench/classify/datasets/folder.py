"""Any image folder: `train/<class>/...`, `test/<class>/...` and optionally `val/<class>/...`."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from shlex import quote

import numpy as np

from harl_bench.classify.datasets.dataset import DataSet
from harl_bench.classify.datasets.elsewhere import data_folder
from harl_bench.classify.splits import HoldOut, stratified
from harl_bench.core.errors import DataError
from harl_bench.core.images import find_images
from harl_bench.core.manifest import fingerprint
from harl_bench.core.nearby import no_data_folder

VAL_FRACTION = 0.2  # of the training images, if there is no validation split (ssl-transfer, t-ReX)
VAL = ("val", "valid", "validation")  # torchvision's, Roboflow's and ultralytics', Hugging Face's


def folder(root: Path) -> DataSet:
    """Read an image folder.

    Raises:
        DataError: a split is missing or empty, there are two validation splits, class sets differ
            between splits, or a class has too few images.
    """
    present = [name for name in VAL if (root / name).is_dir()]
    if len(present) > 1:
        seen = " and ".join(f"{name}/" for name in present)
        raise DataError(
            "two validation splits", where=root, seen=seen, next="keep one of them in this folder"
        )
    parts = {"train": "train", "val": present[0] if present else "val", "test": "test"}
    return class_folders(
        f"folder-{root.resolve().name}", root, parts, partial(stratified, fraction=VAL_FRACTION)
    )


def class_folders(name: str, root: Path, parts: dict[str, str], hold_out: HoldOut) -> DataSet:
    """Read folders of class folders, one of `parts` for each split. val's may be missing.

    Raises:
        DataError: as `folder`.
    """
    if not root.is_dir():
        raise no_data_folder(root)
    for split in ("train", "test"):
        if not (root / parts[split]).is_dir():
            raise _no_split(root, parts, parts[split])
    parts = {split: part for split, part in parts.items() if (root / part).is_dir()}
    images: list[tuple[str, str, str]] = []  # path, split, class
    for split, part in parts.items():
        _refuse_archives(root / part)
        images += [
            (f"{part}/{path.as_posix()}", split, path.parts[0])
            for path in find_images(root / part)
            if len(path.parts) > 1
        ]
    images.sort()
    members = {split: Counter(c for _, s, c in images if s == split) for split in parts}
    _check(root, members, parts)
    classes = sorted(members["train"])
    number = {name: label for label, name in enumerate(classes)}
    paths = [path for path, _, _ in images]
    return DataSet(
        name=name,
        root=root,
        classes=classes,
        paths=paths,
        labels=np.array([number[c] for _, _, c in images], dtype=np.int64),
        splits={
            split: np.array([i for i, (_, s, _) in enumerate(images) if s == split], dtype=np.int64)
            for split in parts
        },
        fingerprint=fingerprint(root, paths),
        hold_out=hold_out,
    )


def _no_split(root: Path, parts: dict[str, str], part: str) -> DataError:
    """Return the error of a missing split, with the folder that was meant if it is near."""
    error = partial(DataError, f"no {part}/ folder", where=root)
    names = sorted(path.name for path in root.iterdir())
    for name in names:
        if (root / name).is_dir() and name.casefold() == part:
            return error(seen=f"{name}/", next=f"rename {root / name} to {part}")
    data = data_folder(root, [parts["train"]])
    if data and (data / parts["test"]).is_dir():
        return error(seen=f"one in {data}", next=f"--data {quote(str(data))}")
    layout = f"lay images out as {parts['train']}/<class>/, {parts['test']}/<class>/"
    return error(seen=", ".join(names[:8]) or "an empty folder", next=layout)


def _refuse_archives(folder: Path) -> None:
    """Refuse a split whose classes are archives, as in ImageNet's, or lie one folder deeper.

    Raises:
        DataError: says what to do.
    """
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    packed = [name for name in names if name.endswith(".tar") and name[:-4] not in names]
    if packed:
        command = 'for f in *.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}"; done'
        seen = f"{len(packed):,} archives, first {packed[0]}"
        hint = f"cd {quote(str(folder))} && {command}"
        raise DataError("classes that are still packed", where=folder, seen=seen, next=hint)
    if names == [folder.name] and (folder / folder.name).is_dir():
        what, seen = "the class folders lie one folder deeper", f"{folder.name}/"
        hint = f"move what {folder / folder.name} holds to {folder}"
        raise DataError(what, where=folder, seen=seen, next=hint)


def _check(root: Path, members: dict[str, Counter[str]], parts: dict[str, str]) -> None:
    for split, counts in members.items():
        part = parts[split]
        if not counts:
            hint = f"lay them out as {part}/<class>/"
            raise DataError("images, but no class folders", where=root / part, next=hint)
        if differing := set(counts) ^ set(members["train"]):
            name = min(differing)
            present, absent = ("train", part) if name in members["train"] else (part, "train")
            what, count = f"train and {part} hold different classes", len(differing)
            seen = f"{name!r} has images in {present}/ and none in {absent}/ ({count} such classes)"
            hint = "give each class its folder in every split"
            raise DataError(what, where=root, seen=seen, next=hint)
    if len(members["train"]) < 2:
        seen = min(members["train"])
        raise DataError("only one class", where=root / "train", seen=seen, next="give at least two")
    least = 1 if "val" in members else 2  # one to learn from, one to hold out
    for name, count in sorted(members["train"].items()):
        if count < least:
            what, seen = "a class has too few training images", f"{count}, least {least}"
            hint = "add images, a val/ folder, or leave the class out"
            raise DataError(what, where=root / "train" / name, seen=seen, next=hint)
