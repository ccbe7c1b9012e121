"""The folder of a run: the one place that knows its layout.

`<out>/<task>/<dataset>/<protocol>/<checkpoint name>-<sha8>/seed<k>/` holds `run.json` (identity,
written first), `metrics.jsonl`, `config.yaml`, `log.txt`, `checkpoints/`, `pictures/` and
`result.json` (written last, atomically). The run id is a hash of everything that decides the
outcome: the same command again is the same run.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harl_bench.core import contents as data_contents
from harl_bench.core.errors import BenchError, DataError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.results import IDENTITY, RESULT, CheckpointRef, Result, read_result, slug

TRAINED = ("detector", "segmenter")  # formats of checkpoints that are scored, not trained on
State = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True)
class Run:
    """A run folder, found or made by `open_run`.

    `contents` has the digests that it noted when it began, none in earlier versions.
    """

    folder: Path
    run_id: str
    state: State
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        """Folder of PNG images the report shows."""
        return self.folder / "pictures"

    @property
    def checkpoints(self) -> Path:
        """Folder of training checkpoints."""
        return self.folder / "checkpoints"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, so that two equal commands do not write into one run.

        Raises:
            UsageError: another process holds it.
        """
        with open(self.folder / ".lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    "another process is working on this run",
                    where=self.folder,
                    next="wait for it, or stop it",
                ) from None
            yield

    @contextlib.contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Give a function that returns the wall seconds of all sessions on this run until now.

        A session that ends without a result, but not by SIGKILL, leaves its seconds in `wall.json`.
        """
        path, began = self.folder / "wall.json", time.monotonic()
        before = 0.0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = float(json.loads(path.read_bytes())["wall_s"])

        def wall_s() -> float:
            return before + time.monotonic() - began

        try:
            yield wall_s
        finally:
            if (self.folder / RESULT).exists():
                path.unlink(missing_ok=True)
            else:
                with contextlib.suppress(BenchError, OSError):  # a full disk has its own line
                    write_json(path, {"wall_s": round(wall_s(), 1)})


def run_id(
    *,
    task: str,
    dataset: str,
    protocol: str,
    checkpoint_sha256: str,
    seed: int,
    config: Mapping[str, Any],
    data_fingerprint: str,
) -> str:
    """16 hex digits over everything that decides the outcome; insensitive to the order of keys."""
    identity = [task, dataset, protocol, checkpoint_sha256, seed, config, data_fingerprint]
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_run(
    out: str | Path,
    *,
    task: str,
    dataset: str,
    protocol: str,
    checkpoint: CheckpointRef,
    seed: int,
    config: Mapping[str, Any],
    data_fingerprint: str,
    contents: Mapping[str, str] | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> Run:
    """Find the folder of this run, or make it.

    A folder of the same seed that belongs to another run id (other settings or other data) is left
    alone and `seed<k>-<id>` is used beside it.

    Args:
        contents: digests of labels and images, which are no part of the run id (contents.py).
        fresh: throw away what an earlier, equal run left.
        dry_run: only look; write nothing.

    Raises:
        DataError: the run exists, and began with other contents.
    """
    weights = checkpoint.sha256 + (f"-{checkpoint.net}" if checkpoint.asked else "")
    if checkpoint.format == "random" and checkpoint.name != "random":  # of another network
        weights = checkpoint.name
    identity = run_id(
        task=task,
        dataset=dataset,
        protocol=protocol,
        checkpoint_sha256=weights,
        seed=seed,
        config=config,
        data_fingerprint=data_fingerprint,
    )
    name = f"{slug(checkpoint.name)}-{checkpoint.sha256[:8] or 'none'}"
    parent = Path(out) / task / slug(dataset) / slug(protocol) / name
    folder = parent / f"seed{seed}"
    if folder.exists() and _noted(folder).get("run_id", identity) != identity:
        folder = parent / f"seed{seed}-{identity[:8]}"
    if fresh and folder.exists() and not dry_run:
        with Run(folder, identity, "unfinished").locked():
            shutil.rmtree(folder)
    state: State = "new"
    if (folder / RESULT).exists() and _readable(folder / RESULT):
        state = "finished"
    elif (folder / IDENTITY).exists():
        state = "unfinished"
    noted, present = _noted(folder).get("contents", {}), dict(contents or {})
    if checkpoint.format in TRAINED:  # scored anew each time
        noted = present
    elif state != "new" and not fresh:
        data_contents.require_same(folder, noted, present)
    if state == "new" and not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "task": task,
            "dataset": dataset,
            "protocol": protocol,
            "seed": seed,
            "checkpoint": checkpoint.model_dump(),
            "contents": present,
        }
        write_json(folder / IDENTITY, {"run_id": identity} | about)
    return Run(folder, identity, state, present if state == "new" else noted)


def write_result(run: Run, result: Result) -> Path:
    """Put result.json into the run folder; its presence means that the run is finished."""
    path = run.folder / RESULT
    write_json(path, result.model_dump())
    return path


def _noted(folder: Path) -> dict[str, Any]:
    """Return what run.json says of a run, or its result where that is lost; {} for neither."""
    for name in (IDENTITY, RESULT):
        try:
            about = json.loads((folder / name).read_text(encoding="utf-8"))
            if isinstance(about["run_id"], str) and isinstance(about.get("contents", {}), dict):
                return dict(about)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _readable(path: Path) -> bool:
    """A damaged result is measured again."""
    try:
        read_result(path)
    except DataError:
        return False
    return True
