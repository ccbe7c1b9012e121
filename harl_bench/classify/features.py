"""Features of a frozen ResNet, extracted once per image into a folder that every protocol reads.

    <out>/features/<key>/ { features.npy [N, D] float32, done.npy [N] uint8, paths.txt, meta.json }

The key hashes everything the numbers depend on: the tensors, the images' names and sizes, the
transform and the input convention, precision, pooling and this format's version. Work goes into
`<key>.partial` and is renamed when complete. Rows are in sorted-path order and `done` says which
are present, so an interrupted extraction resumes. Several processes (one a GPU) take contiguous
parts of the missing rows and write into the same arrays, so nothing is gathered or counted twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.pixels import (
    CenterCrops,
    Transform,
    collated,
    normalised,
    refuse_unreadable,
)
from harl_bench.classify.splits import Rows
from harl_bench.convert.read import Backbone
from harl_bench.core.files import replacing, write_json
from harl_bench.core.progress import Tracker, log
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.core.unreadable import too_many
from harl_bench.nn import distributed, runtime
from harl_bench.nn.blur import filter_inputs
from harl_bench.nn.resnet import FEATURES, build, load_backbone, pad_same

# 1 normalised BGR images in RGB order, 2 turned images as EXIF says, 3 was TF32 on GPUs.
VERSION = 4
ABSENT, DONE, UNREADABLE = 0, 1, 2
KEEP_EVERY_S = 10.0

Precision = Literal["float32", "bfloat16"]


class Features:
    """A complete feature folder, read split by split."""

    def __init__(self, folder: Path, data: DataSet, splits: dict[str, Rows]) -> None:
        self.folder, self._data = folder, data
        done = np.load(folder / "done.npy")
        self.unreadable = [data.paths[row] for row in np.flatnonzero(done == UNREADABLE)]
        self.splits = {name: rows[done[rows] == DONE] for name, rows in splits.items()}
        self._values = np.load(folder / "features.npy", mmap_mode="r")

    def read(self, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return features [N, D] float32 and labels [N] int64 of a split, in row order."""
        rows = self.splits[split]
        return (
            torch.from_numpy(self._values[rows]).to(device),
            torch.from_numpy(self._data.labels[rows]).to(device),
        )


def key(data: DataSet, backbone: Backbone, transform: Transform, precision: Precision) -> str:
    """Return 32 hex digits over everything the features depend on."""
    digest = hashlib.sha256()
    for name in sorted(backbone.tensors):
        digest.update(name.encode())
        digest.update(backbone.tensors[name].contiguous().numpy().data)
    network: list[object] = [backbone.stride_in_1x1, backbone.feature_grid]
    network += [backbone.padding] if backbone.padding != "torch" else []
    about = [VERSION, data.fingerprint, transform.text(), precision, "global average", *network]
    digest.update(json.dumps(about).encode())
    return digest.hexdigest()[:32]


def extract(
    data: DataSet,
    backbone: Backbone,
    cache: Path,
    *,
    transform: Transform,
    precision: Precision = "float32",
    batch_size: int = 64,
    device: torch.device,
    workers: int = 0,
    allow_unreadable: bool = False,
    processes: int = 1,
) -> Path:
    """Return the folder with the features of a data set, extracted unless it exists.

    Args:
        processes: how many share the work, on a GPU each.

    Raises:
        DataError: more than 1 % of the images cannot be decoded, and that was not allowed.
    """
    folder = cache / key(data, backbone, transform, precision)
    cache.mkdir(parents=True, exist_ok=True)
    with _waiting_lock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            _, done = _opened(partial, data, backbone.arch)
            remaining = np.flatnonzero(done == ABSENT)
            settings = (transform, precision, batch_size, device, workers, allow_unreadable)
            speed = distributed.launch(
                _fill, processes, data, remaining, backbone, partial, *settings
            )
            _refuse_many_unreadable(partial, data, allow_unreadable)
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
        _refuse_many_unreadable(folder, data, allow_unreadable)
    return folder


def _fill(
    data: DataSet,
    remaining: Rows,
    backbone: Backbone,
    partial: Path,
    transform: Transform,
    precision: Precision,
    batch_size: int,
    device: torch.device,
    workers: int,
    allow_unreadable: bool,
) -> dict[str, float]:
    """Extract this process's part of the remaining rows.

    Returns:
        Images a second of all processes, and the fraction of the time spent waiting for data.
    """
    values, done = _opened(partial, data, backbone.arch)
    rows = np.array_split(remaining, distributed.world_size())[distributed.rank()]
    runtime.exact_float32()
    if device.type == "cuda" and distributed.world_size() > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    model = network(backbone, device)
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
    with _tracked(len(rows)) as tracker:
        batches = iter(loader)
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            waited += time.monotonic() - before
            if batch is None:
                break
            good, images, bad = batch
            if len(good):
                values[good] = (
                    _forward(model, normalised(images, transform, device), precision).cpu().numpy()
                )
            pending += [(good, DONE), (bad, UNREADABLE)]
            if time.monotonic() - saved > KEEP_EVERY_S:
                _flush(values, done, pending)
                saved = time.monotonic()
            broken = int((done == UNREADABLE).sum())
            broken += sum(len(r) for r, state in pending if state == UNREADABLE)
            if too_many(broken, len(data.paths), allowed=allow_unreadable):
                break
            if tracker:
                waiting = f"{waited / max(time.monotonic() - start, 1e-9):.0%}"
                tracker.advance(len(good) + len(bad), rate=tracker.rate, waiting=waiting)
    _flush(values, done, pending)
    elapsed = max(time.monotonic() - start, 1e-9)
    speeds = distributed.gather((len(rows) / elapsed, waited / elapsed))
    rate, fraction = sum(r for r, _ in speeds), sum(w for _, w in speeds) / len(speeds)
    log.info("features: %.1f images/s, %.0f %% of the time waiting for data", rate, 100 * fraction)
    return {"pictures_per_s": rate, "waiting_share": fraction}


def _tracked(total: int) -> contextlib.AbstractContextManager[Tracker | None]:
    """Return the progress of the first process, nothing in the others."""
    if distributed.is_main():
        return Tracker("features", total, unit="images")
    return contextlib.nullcontext()


def network(backbone: Backbone, device: torch.device) -> torchvision.models.ResNet:
    """Return the frozen ResNet in evaluation mode, with the checkpoint's batch-norm statistics.

    A network that was pretrained with a finer feature grid keeps its strides, because its last
    stage has never seen any other scale.
    """
    model = build(backbone.arch, feature_grid=backbone.feature_grid)
    load_backbone(model, backbone.tensors, name=backbone.arch)
    if backbone.stride_in_1x1:  # the original ResNet, as Detectron2's MSRA weights expect it
        for layer in (model.layer2, model.layer3, model.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    if backbone.padding == "same":
        pad_same(model)
    if backbone.input.high_pass:
        filter_inputs(model)
    frozen: torch.nn.Module = (
        model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    )
    return frozen


def _forward(model: torch.nn.Module, pixels: Tensor, precision: Precision) -> Tensor:
    """Return pooled features [B, D] float32 of normalised images [B, 3, S, S]."""
    with (
        torch.inference_mode(),
        torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        features: Tensor = model(pixels)
    return features.float()


def _opened(partial: Path, data: DataSet, arch: str) -> tuple[Any, Any]:
    """Return the two arrays of an unfinished extraction, created if they are missing."""
    partial.mkdir(exist_ok=True)
    done_at, values_at = partial / "done.npy", partial / "features.npy"
    if not done_at.exists():
        (partial / "paths.txt").write_text(
            "\n".join(data.paths) + "\n", encoding="utf-8", errors="surrogateescape"
        )
        shape = (len(data.paths), FEATURES[arch])
        np.lib.format.open_memmap(values_at, mode="w+", dtype=np.float32, shape=shape)
        _allocate(values_at)
        # Last: its presence says that both exist.
        with replacing(done_at) as temporary, open(temporary, "wb") as file:
            np.save(file, np.zeros(len(data.paths), dtype=np.uint8))
    return np.load(values_at, mmap_mode="r+"), np.load(done_at, mmap_mode="r+")


def _allocate(path: Path) -> None:
    """Allocate the file's blocks: a hole that meets a full disk later kills with SIGBUS."""
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _flush(values: Any, done: Any, pending: list[tuple[Rows, int]]) -> None:
    """Write features to disk first, then the flags that vouch for them."""
    values.flush()
    for rows, state in pending:
        done[rows] = state
    done.flush()
    pending.clear()


def _refuse_many_unreadable(folder: Path, data: DataSet, allowed: bool) -> None:
    broken = np.flatnonzero(np.load(folder / "done.npy") == UNREADABLE)
    if not len(broken):
        return
    paths = [data.paths[row] for row in broken]
    if too_many(len(broken), len(data.paths), allowed=allowed):
        refuse_unreadable(data, paths)
    names = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    log.warning(
        "%d of %d images are unreadable and left out: %s", len(broken), len(data.paths), names
    )


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
