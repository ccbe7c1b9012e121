"""Scenes for `saliency_crop`: two global views and n local crops, placed by saliency maps."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from pretrain.augment import resize
from pretrain.batch import Scene
from pretrain.config import PretrainConfig
from pretrain.data import Cells, Sample, TwoViews, steps_per_epoch
from pretrain.images import Images
from pretrain.saliency.maps import MapMemory, guided_box, salient_box, shares
from pretrain.views import BYOL_VIEWS, View

# Table A1 with the reconstruction's crops; local crops as T, blurred every other time as in
# multi-crop methods.
GLOBAL = tuple(replace(view, crop_area=(0.2, 1.0)) for view in BYOL_VIEWS)
PREFETCHED = 2  # batches per worker, DataLoader's default
LOCAL = View(crop_area=(0.05, 0.3), blur=0.5)


class SceneViews(TwoViews):
    """Item (epoch, index) is two global views, and in `scene` the rest.

    The draws depend on (seed, epoch, index) and on the image's map as the last epoch but one left
    it.
    """

    def __init__(
        self,
        images: Images,
        *,
        size: int,
        seed: int,
        local_crops: int,
        local_size: int,
        temperature: float,
        momentum: float,
        unfinished: bool = False,
        cells: Cells | None = None,
    ) -> None:
        super().__init__(
            images, views=GLOBAL, size=size, seed=seed, unfinished=unfinished, cells=cells
        )
        self.local_crops, self.local_size, self.temperature = local_crops, local_size, temperature
        self.memory = MapMemory(len(images.paths), momentum=momentum)

    def _sample(
        self,
        epoch: int,
        i: int,
        image: Image.Image,
        mask: Image.Image,
        unreadable: list[tuple[str, str]],
    ) -> Sample:
        n, s = self.local_crops, self.memory.readable(epoch, i)
        width, height = image.size
        rngs = self._rngs(epoch, i, len(self.views) + n)
        boxes = [
            salient_box(width, height, recipe, s, rng)
            for recipe, rng in zip(self.views, rngs, strict=False)
        ]
        views = [
            self._view(image, mask, box, recipe, self.size, rng)
            for box, recipe, rng in zip(boxes, self.views, rngs, strict=False)
        ]
        local = []
        for rng in rngs[len(self.views) :]:
            box = guided_box(width, height, LOCAL, s, rng, temperature=self.temperature)
            boxes.append(box)
            local.append(self._view(image, mask, box, LOCAL, self.local_size, rng))
        side = self.local_size
        whole = torch.from_numpy(np.ascontiguousarray(resize(image, self.size))).permute(2, 0, 1)
        scene = Scene(
            index=torch.tensor(i),
            whole=whole.contiguous(),
            boxes=torch.stack([shares(box, width, height) for box in boxes]),
            local=torch.stack([x for x, _, _ in local]) if local else torch.empty(0, 3, side, side),
            colors=torch.stack([d for _, _, d in local]) if local and self.unfinished else None,
        )
        return self._together(views, mask, unreadable, scene)

    def most_workers(self, config: PretrainConfig, wanted: int) -> int:
        """So many that they read less than an epoch ahead, on which `MapMemory` counts; the loop
        itself is one batch ahead.
        """
        per_epoch = steps_per_epoch(len(self.images.paths), config.batch_size) * config.accumulate
        return min(wanted, (per_epoch - 1) // PREFETCHED)
