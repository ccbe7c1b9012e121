"""Any image folder: `train/<class>/...`, `test/<class>/...` and optionally `val/<class>/...` under
one of its names.
"""

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

VAL_SHARE = 0.2  # of the training images, where a set has no validation split (ssl-transfer, t-ReX)
VAL = ("val", "valid", "validation")  # torchvision's, Roboflow's and ultralytics', Hugging Face's


def folder(root: Path) -> DataSet:
    """An image folder.

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
        f"folder-{root.resolve().name}", root, parts, partial(stratified, share=VAL_SHARE)
    )


def class_folders(name: str, root: Path, parts: dict[str, str], hold_out: HoldOut) -> DataSet:
    """Folders of class folders; `parts` gives each split's, of which val's may be absent.

    Raises:
        DataError: as `folder`.
    """
    if not root.is_dir():
        raise no_data_folder(root)
    for split in ("train", "test"):
        if not (root / parts[split]).is_dir():
            raise _no_split(root, parts, parts[split])
    found: list[tuple[str, str, str]] = []  # path, split, class
    for split, part in parts.items():
        if (root / part).is_dir():
            _unpacked(root / part)
            found += [
                (f"{part}/{path.as_posix()}", split, path.parts[0])
                for path in find_images(root / part)
                if len(path.parts) > 1
            ]
    found.sort()
    splits = [split for split, part in parts.items() if (root / part).is_dir()]
    members = {split: Counter(c for _, s, c in found if s == split) for split in splits}
    _check(root, members, parts)
    classes = sorted(members["train"])
    number = {name: label for label, name in enumerate(classes)}
    paths = [path for path, _, _ in found]
    return DataSet(
        name=name,
        root=root,
        classes=classes,
        paths=paths,
        labels=np.array([number[c] for _, _, c in found], dtype=np.int64),
        splits={
            s: np.array([i for i, f in enumerate(found) if f[1] == s], dtype=np.int64)
            for s in splits
        },
        fingerprint=fingerprint(root, paths),
        hold_out=hold_out,
    )


def _no_split(root: Path, parts: dict[str, str], part: str) -> DataError:
    """Return the error of a missing split, which names the folder that was meant, if that is
    near.
    """
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name.casefold() == part:
            return DataError(
                f"no {part}/ folder",
                where=root,
                seen=f"{path.name}/",
                next=f"rename {path} to {part}",
            )
    data = data_folder(root, [parts["train"]])
    if data and (data / parts["test"]).is_dir():
        return DataError(
            f"no {part}/ folder",
            where=root,
            seen=f"one in {data}",
            next=f"--data {quote(str(data))}",
        )
    there = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder"
    layout = f"lay images out as {parts['train']}/<class>/, {parts['test']}/<class>/"
    return DataError(f"no {part}/ folder", where=root, seen=there, next=layout)


def _unpacked(folder: Path) -> None:
    """Refuse a split whose classes are still archives, as ImageNet's training archive holds them,
    or lie deeper.

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
        hint = f"move what {folder / folder.name} holds to {folder}"
        raise DataError(
            "the class folders lie one folder deeper",
            where=folder,
            seen=f"{folder.name}/",
            next=hint,
        )


def _check(root: Path, members: dict[str, Counter[str]], parts: dict[str, str]) -> None:
    for split, counts in members.items():
        part = parts[split]
        if not counts:
            raise DataError(
                "images, but no class folders",
                where=root / part,
                next=f"lay them out as {part}/<class>/",
            )
        if differing := set(counts) ^ set(members["train"]):
            name = min(differing)
            where, absent = ("train", part) if name in members["train"] else (part, "train")
            raise DataError(
                f"train and {part} hold different classes",
                where=root,
                seen=(
                    f"{name!r} has images in {where}/ and none in {absent}/ ({len(differing)} "
                    "such classes)"
                ),
                next="give each class its folder in every split",
            )
    if len(members["train"]) < 2:
        raise DataError(
            "only one class",
            where=root / "train",
            seen=min(members["train"]),
            next="give at least two",
        )
    least = 1 if "val" in members else 2  # one to learn from, one to hold out
    for name, count in sorted(members["train"].items()):
        if count < least:
            raise DataError(
                "a class has too few training images",
                where=root / "train" / name,
                seen=f"{count}, least {least}",
                next="add images, a val/ folder, or leave the class out",
            )
