"""Pictures with their masks, as batches of two views. Every draw depends on (seed, epoch, index) alone, so neither the
number of workers nor an interruption changes what is seen."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from harl_bench.core.errors import BenchError, DataError, UsageError
from harl_bench.core.manifest import fingerprint
from harl_bench.core.pictures import find_pictures, read_mask, read_rgb
from harl_bench.nn.runtime import leave_signals_to_the_loop
from pretrain.augment import View, view
from pretrain.methods.method import Batch

ORDER, VIEWS = 0, 1  # streams of the seed


@dataclass(frozen=True)
class Pictures:
    """The unlabelled pictures and which of them have a usable mask.

    Args:
        root, paths: pictures, relative to the root, sorted.
        masks: folder of masks at the same relative paths ending in .png; None for methods without masks.
        masked: per picture, whether its mask exists and was not rejected.
        rejected: how many masks their maker rejected.
    """

    root: Path
    paths: list[Path]
    masks: Path | None
    masked: list[bool]
    rejected: int = 0

    def fingerprint(self) -> str:
        """Changes when a picture or mask is added, removed or resized."""
        parts = [fingerprint(self.root, self.paths)]
        if self.masks is not None:
            there = [p.with_suffix(".png") for p, masked in zip(self.paths, self.masked, strict=True) if masked]
            parts.append(fingerprint(self.masks, there))
        return "-".join(parts)


def find(root: Path, masks: Path | None) -> Pictures:
    """Look for pictures, and for masks by their path relative to the root.

    Raises:
        DataError: a folder is missing or empty, or no picture has a mask.
    """
    paths = find_pictures(root)
    if masks is None:
        return Pictures(root, paths, None, [False] * len(paths))
    there = set(find_pictures(masks))
    rejected = _rejected(masks)
    names = [path.with_suffix(".png") for path in paths]
    if not there.intersection(names):
        example = names[0]
        raise DataError(
            "no picture has a mask", where=masks, seen=f"{len(there)} files, none named like {example}",
            next=f"harl-bench masks make {root} --out {masks} --method drfi-lite",
        )  # fmt: skip
    masked = [name in there and name.as_posix() not in rejected for name in names]
    return Pictures(root, paths, masks, masked, rejected=sum(n.as_posix() in rejected for n in names))


def _rejected(masks: Path) -> set[str]:
    """Masks that their maker flagged invalid in manifest.csv (all-zero files; docs/fidelity.md 2)."""
    manifest = masks / "manifest.csv"
    if not manifest.is_file():
        return set()
    with open(manifest, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        if not {"path", "valid"} <= set(rows.fieldnames or ()):
            raise DataError("manifest lacks its columns path and valid", where=manifest, seen=rows.fieldnames)
        return {
            Path(row["path"]).with_suffix(".png").as_posix()
            for row in rows
            if str(row["valid"]).lower() in ("0", "false", "no")
        }


@dataclass(frozen=True)
class Sample:
    """One picture's two views, or the fault that must stop the run."""

    views: list[torch.Tensor]
    masks: list[torch.Tensor]
    has_mask: bool
    unreadable: list[tuple[str, str]]
    error: BenchError | None = None


class TwoViews(Dataset[Sample]):
    """Item (epoch, index) is the picture's two views in that epoch."""

    def __init__(self, pictures: Pictures, *, views: Sequence[View], size: int, seed: int) -> None:
        self.pictures, self.views, self.size, self.seed = pictures, views, size, seed

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, index = item
        try:
            return self._sample(epoch, index)
        except BenchError as error:  # handed to the loop: an exception out of a worker loses its one clear line
            return Sample([], [], False, [], error)

    def _sample(self, epoch: int, index: int) -> Sample:
        found, unreadable = self.pictures, []
        for step in range(len(found.paths)):  # an unreadable picture is replaced by the next one
            i = (index + step) % len(found.paths)
            path = found.root / found.paths[i]
            try:
                picture = read_rgb(path)
                break
            except DataError as error:
                unreadable.append((str(found.paths[i]), str(error.seen or error.what)))
        else:
            raise DataError("no picture can be read", where=found.root, seen=unreadable[0][1])
        mask = Image.new("L", picture.size, 0)
        if found.masks is not None and found.masked[i]:
            mask = read_mask(found.masks / found.paths[i].with_suffix(".png"), picture.size)
        has_mask = mask.getextrema() != (0, 0)  # an all-zero mask is a rejected one
        rngs = [np.random.default_rng((self.seed, VIEWS, epoch, i, v)) for v in range(len(self.views))]
        made = [view(picture, mask, recipe, self.size, rng) for recipe, rng in zip(self.views, rngs, strict=True)]
        return Sample([x for x, _ in made], [m for _, m in made], has_mask, unreadable)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples to [2, B, ...]; the first fault, if any, goes with the batch."""
    error = next((sample.error for sample in samples if sample.error), None)
    if error is not None:
        empty = torch.empty(0)
        return Batch(empty, empty, empty, error=error)
    views = torch.stack([torch.stack(column) for column in zip(*(s.views for s in samples), strict=True)])
    masks = torch.stack([torch.stack(column) for column in zip(*(s.masks for s in samples), strict=True)])
    has_mask = torch.tensor([sample.has_mask for sample in samples])
    return Batch(views, masks, has_mask, unreadable=[fault for sample in samples for fault in sample.unreadable])


def order(n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The shuffled indices of an epoch."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(n)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches only.

    Raises:
        UsageError: fewer pictures than one batch.
    """
    if n < batch_size:
        raise UsageError(
            "batch_size is larger than the data set",
            seen=f"{batch_size} > {n} pictures",
            next=f"add batch_size={max(2, n // 4)}",
        )
    return n // batch_size


class Batches:
    """Batch sampler from step `first` to step `last` of a run: lists of (epoch, index)."""

    def __init__(self, n: int, *, batch_size: int, seed: int, first: int, last: int) -> None:
        self.n, self.batch_size, self.seed, self.first, self.last = n, batch_size, seed, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(self.n, self.batch_size)
        indices, current = np.empty(0, np.int64), -1
        for step in range(self.first, self.last):
            epoch, position = divmod(step, per_epoch)
            if epoch != current:
                indices, current = order(self.n, seed=self.seed, epoch=epoch), epoch
            start = position * self.batch_size
            yield [(epoch, int(i)) for i in indices[start : start + self.batch_size]]


def loader(dataset: TwoViews, batches: Batches, *, workers: int) -> DataLoader[Any]:
    """Batches in order, read by worker processes."""
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate,
        pin_memory=torch.cuda.is_available(), worker_init_fn=leave_signals_to_the_loop,
    )  # fmt: skip
