"""Features of a frozen ResNet, extracted once per image into a folder that every protocol reads.

    <out>/features/<key>/ { features.npy [N, D] float32, done.npy [N] uint8, paths.txt, meta.json }

The key hashes everything the numbers depend on: the tensors, the images' names and sizes, the
transform and the input convention, precision, pooling and this format's version. Digits of a
sample of the images' bytes follow it. Work goes into `<key>.partial` and is renamed when
complete. Rows are in sorted-path order and `done` says which are present, so an interrupted
extraction resumes, with any number of processes. Several of them (one a GPU, on one machine or,
under torchrun, on several that share the folder) take contiguous parts of the missing rows and
write into the same arrays, so nothing is gathered or counted twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from harl_bench.classify import stored
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.network import Precision, forward, network, width
from harl_bench.classify.pixels import (
    CenterCrops,
    Transform,
    collated,
    normalised,
    refuse_unreadable,
)
from harl_bench.classify.splits import Rows
from harl_bench.convert.read import Backbone
from harl_bench.core.contents import head, of_sample
from harl_bench.core.errors import DataError, MachineError
from harl_bench.core.files import write_json
from harl_bench.core.progress import Tracker, log
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.core.unreadable import too_many
from harl_bench.nn import distributed, launching, runtime

# 1 normalised BGR images in RGB order, 2 turned images as EXIF says, 3 was TF32 on GPUs.
VERSION = 4
ABSENT, DONE, UNREADABLE = 0, 1, 2
KEEP_EVERY_S = 10.0


class Features:
    """A complete feature folder, read split by split."""

    def __init__(self, folder: Path, data: DataSet, splits: dict[str, Rows]) -> None:
        self.folder, self._data = folder, data
        done = np.load(folder / "done.npy")
        self.unreadable = [data.paths[row] for row in np.flatnonzero(done == UNREADABLE)]
        self.splits = {name: rows[done[rows] == DONE] for name, rows in splits.items()}
        self._values = np.load(folder / "features.npy", mmap_mode="r")

    def read(self, split: str, device: torch.device) -> tuple[stored.FeatureRows, Tensor]:
        """Return features [N, D] float32 and labels [N] int64 of a split, in row order.

        Features that would fill the memory stay in their file (stored.py).
        """
        rows = self.splits[split]
        labels = torch.from_numpy(self._data.labels[rows]).to(device)
        return stored.read(self._values, rows, device), labels


def key(
    data: DataSet,
    backbone: Backbone,
    transform: Transform,
    precision: Precision,
    stage: int | None = None,
) -> str:
    """Return 32 hex digits over everything the features depend on."""
    digest = hashlib.sha256()
    for name in sorted(backbone.tensors):
        digest.update(name.encode())
        digest.update(backbone.tensors[name].contiguous().numpy().data)
    network: list[object] = [backbone.stride_in_1x1, backbone.feature_grid]
    network += [backbone.padding] if backbone.padding != "torch" else []
    network += ["high pass"] if backbone.input.high_pass else []
    pooling = "global average" if stage is None else f"stage {stage}, mmselfsup's pooling"
    about = [VERSION, data.fingerprint, transform.text(), precision, pooling, *network]
    digest.update(json.dumps(about).encode())
    return digest.hexdigest()[:32]


def extract(
    data: DataSet,
    backbone: Backbone,
    cache: Path,
    *,
    transform: Transform,
    precision: Precision = "float32",
    stage: int | None = None,
    batch_size: int = 64,
    device: torch.device,
    workers: int = 0,
    allow_unreadable: bool = False,
    processes: int = 1,
) -> Path:
    """Return the folder with the features of a data set, extracted unless it exists.

    Args:
        stage: whose map is pooled for an SVM (stages.py); None: the last one's global average.
        processes: how many share the work, on a GPU each.

    Raises:
        DataError: more than 1 % of the images cannot be decoded, and that was not allowed.
    """
    folder = _folder(cache / key(data, backbone, transform, precision, stage), data)
    cache.mkdir(parents=True, exist_ok=True)
    with _waiting_lock(folder.with_suffix(".lock")):
        partial = folder.with_suffix(".partial")
        if folder.exists() and _mended(folder, data):
            folder.rename(partial)
        if not folder.exists():
            stored.create(partial, data.paths, width(backbone.arch, stage))
            remaining = _remaining(partial)
            settings = (transform, precision, stage, batch_size, device, workers, allow_unreadable)
            speed = launching.lead(_fill, processes, data, remaining, backbone, partial, *settings)
            _unreadable(partial, data, allow_unreadable)
            if absent := int((np.load(partial / "done.npy") == ABSENT).sum()):
                what = f"{absent:,} images have no features yet: a process has not written its part"
                raise MachineError(what, where=partial, next="give the same command again")
            about = {
                "transform": transform.text(),
                "precision": precision,
                "checkpoint": backbone.ref.model_dump(),
            }
            write_json(
                partial / "meta.json",
                {"version": VERSION, "pictures": len(data.paths), **about, **speed},
            )
            partial.rename(folder)
        else:
            log.info("features exist already: %s", folder)
        if broken := _unreadable(folder, data, allow_unreadable):
            names = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
            count = f"{len(broken)} of {len(data.paths)} images are unreadable and left out"
            log.warning("%s: %s", count, names)
    return folder


def _folder(folder: Path, data: DataSet) -> Path:
    """Return the folder of a key, with digits of a sample of the files' bytes.

    Other images may have the names and sizes of those before. Features of earlier versions lie
    under the key alone.
    """
    earlier = folder.exists() or folder.with_suffix(".partial").exists()
    if earlier or data.pixels is not None:
        return folder
    sample = of_sample(len(data.paths), lambda i: head(data.root / data.paths[i]))
    return folder.with_name(f"{folder.name}-{sample[:8]}")


def _mended(folder: Path, data: DataSet) -> bool:
    """Return whether an image that could not be decoded can be now, under the same size."""
    broken = np.flatnonzero(np.load(folder / "done.npy") == UNREADABLE)
    return any(_readable(data, row) for row in broken.tolist())


def _readable(data: DataSet, row: int) -> bool:
    try:
        data.read(row)
    except DataError:
        return False
    return True


def _remaining(partial: Path) -> Rows:
    """Return the rows without features. Images that could not be decoded are tried again."""
    done = np.load(partial / "done.npy")
    broken = np.flatnonzero(done == UNREADABLE)
    with contextlib.closing(stored.Writer(partial / "done.npy")) as flags:
        flags.write(broken, np.full(len(broken), ABSENT, dtype=np.uint8))
    return np.flatnonzero(done != DONE)


def _fill(
    data: DataSet,
    remaining: Rows,
    backbone: Backbone,
    partial: Path,
    transform: Transform,
    precision: Precision,
    stage: int | None,
    batch_size: int,
    device: torch.device,
    workers: int,
    allow_unreadable: bool,
) -> dict[str, float]:
    """Extract this process's part of the remaining rows.

    Returns:
        Images a second of all processes, and the fraction of the time spent waiting for data.
    """
    rows = np.array_split(remaining, distributed.world_size())[distributed.rank()]
    runtime.exact_float32()
    if device.type == "cuda" and distributed.world_size() > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    model = network(backbone, device, stage)
    loader = DataLoader(
        CenterCrops(data, rows, transform),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collated,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_the_parent,
    )
    start = saved = time.monotonic()
    waited = 0.0
    pending: list[tuple[Rows, int]] = []
    done = np.load(partial / "done.npy", mmap_mode="r")
    with (
        contextlib.closing(stored.Writer(partial / "features.npy")) as values,
        contextlib.closing(stored.Writer(partial / "done.npy")) as flags,
        _tracked(len(rows)) as tracker,
    ):
        batches = iter(loader)
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            waited += time.monotonic() - before
            if batch is None:
                break
            good, images, bad = batch
            if len(good):
                pixels = normalised(images, transform, device)
                values.write(good, forward(model, pixels, precision).cpu().numpy())
            pending += [(good, DONE), (bad, UNREADABLE)]
            if time.monotonic() - saved > KEEP_EVERY_S:
                _flush(values, flags, pending)
                saved = time.monotonic()
            broken = int((done == UNREADABLE).sum())
            broken += sum(len(r) for r, state in pending if state == UNREADABLE)
            if too_many(broken, len(data.paths), allowed=allow_unreadable):
                break
            if tracker:
                waiting = f"{waited / max(time.monotonic() - start, 1e-9):.0%}"
                tracker.advance(len(good) + len(bad), rate=tracker.rate, waiting=waiting)
        _flush(values, flags, pending)
    elapsed = max(time.monotonic() - start, 1e-9)
    speeds = distributed.gather((len(rows) / elapsed, waited / elapsed))
    rate, fraction = sum(r for r, _ in speeds), sum(w for _, w in speeds) / len(speeds)
    log.info("features: %.1f images/s, %.0f %% of the time waiting for data", rate, 100 * fraction)
    return {"pictures_per_s": rate, "waiting_share": fraction}


def _flush(values: stored.Writer, flags: stored.Writer, pending: list[tuple[Rows, int]]) -> None:
    """Write features to disk first, then the flags that vouch for them."""
    values.keep()
    for rows, state in pending:
        flags.write(rows, np.full(len(rows), state, dtype=np.uint8))
    flags.keep()
    pending.clear()


def _tracked(total: int) -> contextlib.AbstractContextManager[Tracker | None]:
    """Return the progress of the first process, nothing in the others."""
    if distributed.is_main():
        return Tracker("features", total, unit="images")
    return contextlib.nullcontext()


def _unreadable(folder: Path, data: DataSet, allowed: bool) -> list[str]:
    """Return the images that could not be read; too many are refused."""
    paths = [data.paths[row] for row in np.flatnonzero(np.load(folder / "done.npy") == UNREADABLE)]
    if too_many(len(paths), len(data.paths), allowed=allowed):
        refuse_unreadable(data, paths)
    return paths


@contextlib.contextmanager
def _waiting_lock(path: Path) -> Iterator[None]:
    """Let one process extract while the others wait for its features."""
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.info("another process extracts these features; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
