"""Images with their masks, as batches of two views.

Every draw depends on (seed, epoch, index) alone, so neither the number of workers nor an
interruption changes what is seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from harl_bench.core.errors import BenchError, UnreadableError, UsageError
from harl_bench.core.stopping import leave_signals_to_the_parent
from pretrain import colors
from pretrain.augment import Box, chosen_box, crop, normalise, to_tensor
from pretrain.batch import Batch, Scene
from pretrain.config import PretrainConfig
from pretrain.images import Images, find
from pretrain.views import View

__all__ = [
    "Batches",
    "Images",
    "TwoViews",
    "collate",
    "find",
    "loader",
    "on_device",
    "order",
    "steps_per_epoch",
]
ORDER, VIEWS = 0, 1  # streams of the seed
MASK_OF = "mask of "  # begins the names of masks among the unreadable files
Made = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Cells = Callable[[torch.Tensor], torch.Tensor]  # masks [N, 1, H, W] to [N, 1, S, S] of 0 and 1
SHRUNK = 64  # masks at a time: as float32 they take 0.2 MB each


@dataclass(frozen=True)
class Sample:
    """One image's views, or the fault that must stop the run.

    `views` are finished, or uint8 with their `colors` still to come.
    """

    views: list[torch.Tensor]
    masks: list[torch.Tensor]
    has_mask: bool
    unreadable: list[tuple[str, str]]
    error: BenchError | None = None
    colors: list[torch.Tensor] | None = None
    std: tuple[float, float, float] | None = None
    scene: Scene | None = None


class TwoViews(Dataset[Sample]):
    """Item (epoch, index) is the image's views in that epoch.

    Args:
        views: recipes of the views.
        size: their side in pixels.
        seed: of all draws.
        unfinished: leave colors and normalisation to the device that trains (`on_device`).
        cells: what the data workers make of a batch's masks; None leaves them whole.
    """

    def __init__(
        self,
        images: Images,
        *,
        views: Sequence[View],
        size: int,
        seed: int,
        unfinished: bool = False,
        cells: Cells | None = None,
    ) -> None:
        self.images, self.views, self.size = images, views, size
        self.seed, self.unfinished, self.cells = seed, unfinished, cells

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, index = item
        try:
            return self._sample(epoch, *self._read(index))
        # Handed to the loop: an exception out of a worker loses its one clear line.
        except BenchError as error:
            return Sample([], [], False, [], error)

    def _read(self, index: int) -> tuple[int, Image.Image, Image.Image, list[tuple[str, str]]]:
        """(which one it became, image, mask, faults); an unreadable image is replaced by the next
        one.

        A mask that cannot be read counts as none.
        """
        found, unreadable = self.images, []
        for step in range(len(found.paths)):
            i = (index + step) % len(found.paths)
            try:
                image = found.image(i)
                break
            except UnreadableError as error:
                unreadable.append((str(found.paths[i]), str(error.seen or error.what)))
        else:
            raise UnreadableError("no image can be read", where=found.root, seen=unreadable[0][1])
        try:
            mask = found.mask(i, image.size)
        except UnreadableError as error:
            mask = None
            unreadable.append((f"{MASK_OF}{found.paths[i]}", str(error.seen or error.what)))
        return i, image, mask or Image.new("L", image.size, 0), unreadable

    def _sample(
        self,
        epoch: int,
        i: int,
        image: Image.Image,
        mask: Image.Image,
        unreadable: list[tuple[str, str]],
    ) -> Sample:
        made = [
            self._view(image, mask, chosen_box(mask, recipe, rng), recipe, self.size, rng)
            for recipe, rng in zip(self.views, self._rngs(epoch, i, len(self.views)), strict=True)
        ]
        return self._together(made, mask, unreadable)

    def _together(
        self,
        made: list[Made],
        mask: Image.Image,
        unreadable: list[tuple[str, str]],
        scene: Scene | None = None,
    ) -> Sample:
        has_mask = mask.getextrema() != (0, 0)  # an all-zero mask is a rejected one
        views, masks, drawn = ([part[k] for part in made] for k in range(3))
        left = drawn if self.unfinished else None
        return Sample(
            views, masks, has_mask, unreadable, colors=left, std=self.views[0].std, scene=scene
        )

    def _rngs(self, epoch: int, i: int, count: int) -> list[np.random.Generator]:
        return [np.random.default_rng((self.seed, VIEWS, epoch, i, v)) for v in range(count)]

    def _view(
        self,
        image: Image.Image,
        mask: Image.Image,
        box: Box,
        recipe: View,
        size: int,
        rng: np.random.Generator,
    ) -> Made:
        """(image, mask, draw): finished, or uint8."""
        pixels, cut, drawn = crop(image, mask, box, recipe, size, rng)
        if self.unfinished:
            view = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        else:
            view = to_tensor(colors.apply(pixels, drawn), recipe.std)
        return view, cut, torch.from_numpy(drawn)

    def most_workers(self, config: PretrainConfig, wanted: int) -> int:
        """How many processes may read ahead."""
        return wanted


def collate(samples: list[Sample], cells: Cells | None = None) -> Batch:
    """Stack samples to [V, B, ...]; the first fault, if any, goes with the batch.

    Args:
        cells: what becomes of the masks; None: they stay.
    """
    error = next((sample.error for sample in samples if sample.error), None)
    if error is not None:
        empty = torch.empty(0)
        return Batch(empty, empty, empty, error=error)
    drawn = [s.colors for s in samples if s.colors is not None]
    masks = _stacked([s.masks for s in samples])
    return Batch(
        _stacked([s.views for s in samples]),
        _shrunk(masks, cells) if cells else masks,
        torch.tensor([sample.has_mask for sample in samples]),
        unreadable=[fault for sample in samples for fault in sample.unreadable],
        colors=_stacked(drawn) if drawn else None,
        std=samples[0].std,
        scene=_scenes([s.scene for s in samples if s.scene is not None]),
    )


def _stacked(samples: list[list[torch.Tensor]]) -> torch.Tensor:
    """[V, B, ...] of B samples with V tensors each."""
    V = len(samples[0])
    stacked = torch.stack([views[v] for v in range(V) for views in samples])
    return stacked.view(V, len(samples), *stacked.shape[1:])


def _shrunk(masks: torch.Tensor, cells: Cells) -> torch.Tensor:
    """[V, B, 1, H, W] to [V, B, 1, S, S] uint8."""
    parts = [cells(part).byte() for part in torch.split(masks.flatten(0, 1), SHRUNK)]
    shrunk = torch.cat(parts)
    return shrunk.view(*masks.shape[:2], *shrunk.shape[1:])


def _scenes(scenes: list[Scene]) -> Scene | None:
    if not scenes:
        return None
    index, whole = (torch.stack([getattr(s, name) for s in scenes]) for name in ("index", "whole"))
    boxes, local = (
        torch.stack([getattr(s, name) for s in scenes], dim=1) for name in ("boxes", "local")
    )
    drawn = [s.colors for s in scenes if s.colors is not None]
    return Scene(index, whole, boxes, local, torch.stack(drawn, dim=1) if drawn else None)


def on_device(batch: Batch, device: torch.device, labels: torch.Tensor | None = None) -> Batch:
    """The batch on the device, where colors and normalisation are finished if they are not."""
    views, masks, has_mask = (
        t.to(device, non_blocking=True) for t in (batch.views, batch.masks, batch.has_mask)
    )
    scene = batch.scene
    if scene is not None:
        whole, boxes, local = (
            t.to(device, non_blocking=True) for t in (scene.whole, scene.boxes, scene.local)
        )
        scene = Scene(scene.index, whole, boxes, finish(local, scene.colors, batch.std))
    return Batch(
        finish(views, batch.colors, batch.std), masks.float(), has_mask, labels=labels, scene=scene
    )


def finish(
    views: torch.Tensor, drawn: torch.Tensor | None, std: tuple[float, float, float] | None
) -> torch.Tensor:
    """Colors and normalisation of [V, B, 3, H, W] uint8 views; those without draws are finished."""
    if drawn is None:
        return views
    finished = colors.apply_batch(views.flatten(0, 1), drawn.flatten(0, 1))
    return normalise(finished, std).view_as(views)


def order(n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The shuffled indices of an epoch."""
    return np.random.default_rng((seed, ORDER, epoch)).permutation(n)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Full batches only.

    Raises:
        UsageError: fewer images than one batch.
    """
    if n < batch_size:
        raise UsageError(
            "batch_size is larger than the data set",
            seen=f"{batch_size} > {n} images",
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
    """Batches in order, read by worker processes.

    Threads of OpenCV end before workers are forked: those would wait for them without end.
    """
    if workers:
        cv2.setNumThreads(0)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(collate, cells=dataset.cells),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=start_worker,
    )


def start_worker(worker: int) -> None:
    """Leave signals to the loop; give OpenCV one thread, not one a core in each worker."""
    leave_signals_to_the_parent(worker)
    cv2.setNumThreads(0)
