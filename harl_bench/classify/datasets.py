"""Data sets for classification: one table of readers, each from a folder on disk to lists of pictures, labels, splits.

Any image folder works: `train/<class>/...`, `test/<class>/...` and optionally `val/<class>/...`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harl_bench.classify.splits import Rows, stratified
from harl_bench.core.errors import DataError
from harl_bench.core.manifest import fingerprint
from harl_bench.core.pictures import find_pictures, read_rgb

if TYPE_CHECKING:
    from PIL import Image

VAL_SHARE = 0.2  # of the training pictures, where a set has no validation split (ssl-transfer, t-ReX)


@dataclass(frozen=True)
class DataSet:
    """Pictures in sorted-path order. `splits` holds the rows of train, test and, if the set has one, val."""

    name: str
    root: Path
    classes: list[str]
    paths: list[str]  # relative to root
    labels: Rows
    splits: dict[str, Rows]
    fingerprint: str
    departures: tuple[str, ...] = ()

    def read(self, row: int) -> Image.Image:
        """Decode one picture to RGB.

        Raises:
            DataError: unreadable.
        """
        return read_rgb(self.root / self.paths[row])

    def divided(self, seed: int, share: float = VAL_SHARE) -> dict[str, Rows]:
        """`splits` with a val part: the official one, else one drawn from train by the seed, class by class."""
        if "val" in self.splits:
            return dict(self.splits)
        train, val = stratified(self.labels, self.splits["train"], share, np.random.default_rng(seed))
        return {**self.splits, "train": train, "val": val}


def folder(root: Path) -> DataSet:
    """An image folder.

    Raises:
        DataError: a split is missing or empty, class sets differ between splits, or a class has too few pictures.
    """
    if not root.is_dir():
        raise DataError("data folder not found", where=root, next="check --data")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            there = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "an empty folder"
            raise DataError(
                f"no {split}/ folder", where=root, seen=there, next="lay pictures out as train/<class>/, test/<class>/"
            )
    names = [split for split in ("train", "val", "test") if (root / split).is_dir()]
    found: list[tuple[str, str, str]] = []  # path, split, class
    for split in names:
        for path in find_pictures(root / split):
            if len(path.parts) > 1:
                found.append((f"{split}/{path.as_posix()}", split, path.parts[0]))
    found.sort()
    members = {split: Counter(c for _, s, c in found if s == split) for split in names}
    _check(root, members)
    classes = sorted(members["train"])
    number = {name: label for label, name in enumerate(classes)}
    paths = [path for path, _, _ in found]
    return DataSet(
        name=f"folder-{root.resolve().name}",
        root=root,
        classes=classes,
        paths=paths,
        labels=np.array([number[c] for _, _, c in found], dtype=np.int64),
        splits={s: np.array([i for i, f in enumerate(found) if f[1] == s], dtype=np.int64) for s in names},
        fingerprint=fingerprint(root, paths),
    )


def _check(root: Path, members: dict[str, Counter[str]]) -> None:
    for split, counts in members.items():
        if not counts:
            raise DataError(
                "pictures, but no class folders", where=root / split, next=f"lay them out as {split}/<class>/"
            )
        if differing := set(counts) ^ set(members["train"]):
            name = min(differing)
            where, absent = ("train", split) if name in members["train"] else (split, "train")
            raise DataError(
                f"train and {split} hold different classes", where=root,
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


DATASETS: dict[str, Callable[[Path], DataSet]] = {"folder": folder}
