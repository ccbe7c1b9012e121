"""Where a missing file lies instead: one folder deeper, or renamed on the way."""

import os
from pathlib import Path

from harl_bench.core.errors import DataError


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
