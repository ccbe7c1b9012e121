"""Checkpoints whose digest is known already: a finished run is recognized without torch, and no
file is hashed twice.

`<out>/.checkpoints/<key>.json` holds a reference with the size, mtime and ctime of every file it
was read from. It counts only while all of these are the same. Files that were written less than
RACY_S before they were read are not noted: a clock that ticks in seconds could hide a later change.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harl_bench.core.files import write_json
from harl_bench.core.results import CheckpointRef

FOLDER, RACY_S = ".checkpoints", 2.0
# Random weights by name: a ResNet-50 or -18, with the strides of feature_grid 7, 14 or 28
# (nn/resnet.py).
RANDOM = re.compile(r"random(-resnet18)?(?:-grid(14|28))?")


def reference(out: Path, source: str, *options: object) -> CheckpointRef | None:
    """Return what `remember` noted of a checkpoint, None where nothing is known or a file has
    changed since.

    Args:
        options: whatever else decides which network of the file is meant, as for `remember`.
    """
    if drawn := random_weights(source):
        return drawn
    try:
        noted = json.loads(_note(out, source, options).read_text(encoding="utf-8"))
        if noted["files"] != [_stamp(Path(file[0])) for file in noted["files"]]:
            return None
        return CheckpointRef.model_validate(noted["reference"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def random_weights(source: str) -> CheckpointRef | None:
    """Return the reference of random weights, such as `random-resnet18-grid14`, None for a file."""
    if not RANDOM.fullmatch(source):
        return None
    return CheckpointRef(path=source, name=source, sha256="", format="random")


def remember(
    out: Path,
    source: str,
    *options: object,
    reference: CheckpointRef,
    files: Iterable[Path],
    since: float,
) -> None:
    """Note a checkpoint's reference, unless a file of it is too young to be sure of.

    Args:
        files: that were read.
        since: time.time() before the first was opened.
    """
    stamps = [_stamp(file.absolute()) for file in files]
    if stamps and all(
        max(modified, changed) < (since - RACY_S) * 1e9 for _, _, modified, changed in stamps
    ):
        write_json(
            _note(out, source, options), {"files": stamps, "reference": reference.model_dump()}
        )


def now() -> float:
    """Return seconds on the clock that files are stamped with."""
    return time.time()


def _note(out: Path, source: str, options: tuple[object, ...]) -> Path:
    key = json.dumps([str(Path(source).absolute()), source, *map(str, options)])
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    return Path(out) / FOLDER / f"{digest[:32]}.json"


def _stamp(path: Path) -> list[Any]:  # as JSON gives it back
    about = os.stat(path)
    return [str(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns]
