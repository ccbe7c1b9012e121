"""Any image folder: `train/<class>/...`, `test/<class>/...` and optionally `val/<class>/...`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from harl_bench.classify.datasets.dataset import DataSet
from harl_bench.classify.splits import HoldOut, stratified
from harl_bench.core.errors import DataError
from harl_bench.core.manifest import fingerprint
from harl_bench.core.pictures import find_pictures

VAL_SHARE = 0.2  # of the training pictures, where a set has no validation split (ssl-transfer, t-ReX)


def folder(root: Path) -> DataSet:
    """An image folder.

    Raises:
        DataError: a split is missing or empty, class sets differ between splits, or a class has too few pictures.
    """
    return class_folders(f"folder-{root.resolve().name}", root, {"train": "train", "val": "val", "test": "test"},
                         partial(stratified, share=VAL_SHARE))  # fmt: skip


def class_folders(name: str, root: Path, parts: dict[str, str], hold_out: HoldOut) -> DataSet:
    """Folders of class folders; `parts` gives each split's, of which val's may be absent.

    Raises:
        DataError: as `folder`.
    """
    if not root.is_dir():
        raise DataError("data folder not found", where=root, next="check --data")
    for split in ("train", "test"):
        if not (root / parts[split]).is_dir():
            there = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder"
            layout = f"lay pictures out as {parts['train']}/<class>/, {parts['test']}/<class>/"
            raise DataError(f"no {parts[split]}/ folder", where=root, seen=there, next=layout)
    found: list[tuple[str, str, str]] = []  # path, split, class
    for split, part in parts.items():
        if (root / part).is_dir():
            found += [(f"{part}/{path.as_posix()}", split, path.parts[0])
                      for path in find_pictures(root / part) if len(path.parts) > 1]  # fmt: skip
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
        splits={s: np.array([i for i, f in enumerate(found) if f[1] == s], dtype=np.int64) for s in splits},
        fingerprint=fingerprint(root, paths),
        hold_out=hold_out,
    )


def _check(root: Path, members: dict[str, Counter[str]], parts: dict[str, str]) -> None:
    for split, counts in members.items():
        part = parts[split]
        if not counts:
            raise DataError(
                "pictures, but no class folders", where=root / part, next=f"lay them out as {part}/<class>/"
            )
        if differing := set(counts) ^ set(members["train"]):
            name = min(differing)
            where, absent = ("train", part) if name in members["train"] else (part, "train")
            raise DataError(
                f"train and {part} hold different classes", where=root,
                seen=f"{name!r} has pictures in {where}/ and none in {absent}/ ({len(differing)} such classes)",
                next="give each class its folder in every split",
            )  # fmt: skip
    if len(members["train"]) < 2:
        raise DataError("only one class", where=root / "train", seen=min(members["train"]), next="give at least two")
    least = 1 if "val" in members else 2  # one to learn from, one to hold out
    for name, count in sorted(members["train"].items()):
        if count < least:
            raise DataError(
                "a class has too few training pictures", where=root / "train" / name, seen=f"{count}, least {least}",
                next="add pictures, a val/ folder, or leave the class out",
            )  # fmt: skip
