"""Where a data set lies in the folder of --data, and where a missing file lies instead."""

import os
from collections.abc import Callable
from pathlib import Path

from harl_bench.core.errors import DataError

# Folders of --data where a command looks for its data set; "" is --data itself, which comes first.
# docs/data.md is written from this table.
TREE = {
    "voc": ("", "voc"),
    "coco": ("", "coco"),
    "cityscapes": ("", "segment"),
    "segment": ("", "segment", "voc"),
    "published": ("", "transfer"),
    "folder": ("", "classify"),
}


def nearby(path: Path) -> Path | None:
    """Return where a missing file or folder lies, or None.

    That is one folder deeper, or beside its place in another case or with another suffix.
    """
    try:
        with os.scandir(path.parent) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return None
    deeper = (path.parent / name / path.name for name, is_folder in names if is_folder)
    beside = (
        path.parent / name for name, _ in names if Path(name).stem.lower() == path.stem.lower()
    )
    return next((place for place in (*deeper, *beside) if place.exists() and place != path), None)


def no_data_folder(root: Path, source: str = "from --data") -> DataError:
    """Return the error of a data folder that does not exist, or that is a file."""
    if root.is_file():
        return DataError(
            "the data folder is a file",
            where=root,
            seen=source,
            next="the checkpoint is the first argument, and --data the folder of the data set",
        )
    return DataError("data folder not found", where=root, seen=source, next="check the path")


def within(root: Path, kind: str, holds: Callable[[Path], int]) -> Path:
    """Return the folder of `root` that holds most of a data set, `root` itself if none holds any.

    Args:
        kind: a key of TREE, which has the folders.
        holds: how much of the set a folder holds; True counts as 1.
    """
    return max((root / name for name in TREE[kind]), key=holds)


def belongs(root: Path, kind: str, archive: str) -> str:
    """Return the advice for a data set that is nowhere: where its archive is unpacked."""
    return f"unpack {archive} into {root / TREE[kind][1]}"


def data_root(data: Path | None) -> Path:
    """Return the folder given by --data, else $DETECTRON2_DATASETS (Detectron2's own variable).

    Raises:
        DataError: neither names an existing folder.
    """
    named = data if data is not None else os.environ.get("DETECTRON2_DATASETS")
    if named is None:
        raise DataError("no data folder", next="give --data DIR or set DETECTRON2_DATASETS")
    root = Path(named).expanduser()
    if not root.is_dir():
        source = "--data" if data is not None else "$DETECTRON2_DATASETS"
        raise no_data_folder(root, f"from {source}")
    return root
