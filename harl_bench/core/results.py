"""A result.json: what a run measured, and where results lie below a folder."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harl_bench.core.config import Config
from harl_bench.core.errors import DataError

RESULT, IDENTITY = "result.json", "run.json"


class CheckpointRef(Config):
    """Which weights were measured.

    `sha256` is of the file; "" with format "random" for random initialization.

    `asked` is true where --net names another network than the file's usual one: its runs are other
    runs.
    """

    path: str
    name: str
    sha256: str
    format: str
    net: str = "online"
    asked: bool = False


class Result(Config):
    """One measured run.

    Scores are percent; None is a score that is not defined (nothing to measure it on).

    `metric` tells scores of one name apart: VOC's AP is "11-point" or "area". Results without it
    are older: 11-point.

    `contents` has digests of labels and images (contents.py). Results without them are older.
    """

    schema_version: Literal[1] = 1
    run_id: str
    task: str
    dataset: str
    protocol: str
    engine: str
    method: str  # "": nothing states it, the row is called after the checkpoint's file
    checkpoint: CheckpointRef
    label: str = ""  # the row's name, given by the user at the time `labelled`
    labelled: str = ""
    seed: int
    metrics: dict[str, float | None]
    metric: str = ""
    per_class: dict[str, dict[str, float | None]] = {}
    n_test: int
    data_fingerprint: str = ""
    contents: dict[str, str] = {}
    toy: bool = False
    config: dict[str, Any]
    departures: list[str] = []
    manifest: dict[str, Any]
    started: str
    wall_s: float
    peak_memory_mb: float


def read_result(path: str | Path) -> Result:
    """Read one result.json.

    Raises:
        DataError: unreadable, not JSON, or not a result of a known schema version.
    """
    path = Path(path)
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError("cannot read result", where=path, seen=error.strerror) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        seen = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(
            "not a result of this version",
            where=path,
            seen=seen,
            next="give that run's command again",
        ) from None


def scan(root: str | Path) -> tuple[list[tuple[Path, Result]], list[DataError]]:
    """All finished runs below a folder, sorted by path, and the faults of those that could not be
    read.

    Raises:
        DataError: the folder does not exist.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            "run folder not found",
            where=root,
            next="give the folder that --out named (default: runs)",
        )
    found: list[tuple[Path, Result]] = []
    faults: list[DataError] = []
    for folder, folders, files in walk(root):
        if RESULT in files:
            folders.clear()
            path = Path(folder) / RESULT
            try:
                found.append((path, read_result(path)))
            except DataError as error:
                faults.append(error)
    return found, faults


def walk(root: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield what os.walk does, sorted, through links to folders, each folder once."""
    visited = set[tuple[int, int]]()
    for folder, folders, files in os.walk(root, followlinks=True):
        try:
            about = os.stat(folder)
        except OSError:  # gone since it was listed
            continue
        if (about.st_dev, about.st_ino) in visited:
            folders.clear()
            continue
        visited.add((about.st_dev, about.st_ino))
        folders.sort()
        yield folder, folders, files


def slug(name: str) -> str:
    """A name as one safe path part: letters, digits and ._-+, at most 80 characters."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "unnamed"
    return safe if len(safe) <= 80 else f"{safe[:71]}-{name_digest(name)}"


def name_digest(name: str) -> str:
    """Return eight hexadecimal digits that belong to this name, whatever bytes it holds."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
