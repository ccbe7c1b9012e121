"""COCO's files in Detectron2's layout (D2:data/datasets/builtin.py)."""

import os
import re
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import DataError
from harl_bench.core.nearby import TREE, belongs, nearby
from harl_bench.detection.datasets.sample import file_names

ARCHIVES = {"coco_2017_train": "train2017.zip", "coco_2017_val": "val2017.zip"}
PARTS_OF_VAL = ("minival", "valminusminival")  # of 2014: lists of their own, images in val2014/


def files_of(root: Path, name: str) -> tuple[Path, Path]:
    """Return the JSON and the image folder of a split.

    For `coco_2017_val_100` they are annotations/instances_val2017_100.json and val2017/. The images
    of `coco_2014_minival` are in val2014/.

    Raises:
        DataError: one of them is missing.
    """
    _, year, split = name.split("_", 2)
    split, few = re.fullmatch(r"(.+?)((?:_\d+)?)", split).groups()  # type: ignore[union-attr]
    path = _annotations(root, f"instances_{split}{year}{few}.json", f"{split}{year}{few}", year)
    folder = path.parent.parent / f"{'val' if split in PARTS_OF_VAL else split}{year}"
    if not folder.is_dir():
        hint = f"unpack {ARCHIVES.get(name, 'the images')} there"
        if match := nearby(folder):
            hint = f"it lies at {match}: move it to {folder}"
        raise DataError(f"image folder {folder.name} is missing", where=folder, next=hint)
    return path, folder


def _annotations(root: Path, file: str, split: str, year: str) -> Path:
    bases = [root / name for name in TREE["coco"]]
    for base in bases:
        if (base / "annotations" / file).is_file():
            return base / "annotations" / file
    for base in bases:
        if (base / "annotations").is_dir():
            where = base / "annotations" / file
            seen = ", ".join(sorted(file_names(where.parent))[:6]) or "an empty folder"
            match = nearby(where)
            hint = f"it lies at {match}: move it to {where.parent}" if match else None
            hint = hint or f"unpack annotations_trainval{year}.zip there"
            raise DataError(
                f"COCO {split} annotations are missing", where=where, seen=seen, next=hint
            )
    match = nearby(root / "annotations")
    seen = ", ".join(sorted(file_names(root))[:6]) or "an empty folder"
    hint = belongs(root, "coco", f"annotations_trainval{year}.zip")
    hint = f"--data {quote(str(match.parent))}" if match else hint
    raise DataError("no COCO data", where=root, seen=seen, next=hint)


class ImageFiles:
    """Files of an image folder, looked up by the file_name of a JSON."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.archive = folder, ARCHIVES.get(name, "the images")
        self.names = file_names(folder)

    def path(self, file_name: str) -> Path:
        """Return the file of a `file_name`.

        It is a name in the folder, as COCO's own, a path from the folder above ("val2017/x.jpg"),
        or an absolute path. Its parts may be separated by backslashes.

        Raises:
            DataError: there is no such file.
        """
        if file_name in self.names:
            return self.folder / file_name
        for name in dict.fromkeys((file_name, file_name.replace("\\", "/"))):
            for path in (self.folder / name, self.folder.parent / name):
                if path.is_file():
                    return path
        where = self.folder / file_name
        last = re.split(r"[/\\]", file_name)[-1]
        match = nearby(where)
        if last != file_name and last in self.names:
            hint = f"it lies at {self.folder / last}: write {last} as its file_name"
        elif match and match.parent != where.parent:
            hint = f"it lies at {match}: move what is in {match.parent} to {self.folder}"
        elif match:
            hint = f"it lies at {match}: rename it, or write {match.name} as its file_name"
        else:
            hint = f"unpack {self.archive} completely"
        seen = f"{len(self.names)} files in {self.folder.name}"
        raise DataError("image is missing", where=where, seen=seen, next=hint)


def from_root(path: Path, root: Path) -> str:
    """Return a path relative to the data folder, or absolute where it lies outside."""
    absolute, base = os.path.abspath(path), os.path.abspath(root)
    return os.path.relpath(absolute, base) if Path(absolute).is_relative_to(base) else absolute
