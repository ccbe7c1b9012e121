"""The objects of one image, as a detector takes them for training and returns them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# polygons, each x0 y0 x1 y1 ..., or a bool bitmask [H, W]
Mask = list[NDArray[np.float64]] | Tensor


@dataclass
class Instances:
    """Objects of one image. Ground truth and predictions fill different fields.

    Attributes:
        image_size: (height, width) in pixels of the image that the boxes refer to.
        gt_boxes: [R, 4] float32 xyxy. gt_classes: [R] int64 in 0..K-1. gt_masks: one `Mask` per
            object.
        pred_boxes: [R, 4] float32. scores: [R] float32 in 0..1, descending.
        pred_classes: [R] int64.
        pred_masks: [R, M, M] float32 probabilities inside each box; [R, H, W] bool once pasted.
    """

    image_size: tuple[int, int]
    gt_boxes: Tensor | None = None
    gt_classes: Tensor | None = None
    gt_masks: list[Mask] | None = None
    pred_boxes: Tensor | None = None
    scores: Tensor | None = None
    pred_classes: Tensor | None = None
    pred_masks: Tensor | None = None

    def __len__(self) -> int:
        boxes = self.gt_boxes if self.gt_boxes is not None else self.pred_boxes
        return 0 if boxes is None else len(boxes)

    def to(self, device: torch.device | str) -> Instances:
        """Return a copy on `device`. Ground-truth masks stay: those of sampled regions follow."""
        return self._map(lambda value: value.to(device) if isinstance(value, Tensor) else value)

    def __getitem__(self, keep: Tensor) -> Instances:
        """Return the objects selected by a bool mask or by int64 indices [R']."""
        index = (keep.nonzero().flatten() if keep.dtype == torch.bool else keep).tolist()
        return self._map(
            lambda value: value[keep] if isinstance(value, Tensor) else [value[i] for i in index]
        )

    def _map(self, function: Any) -> Instances:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "image_size"}
        return replace(self, **{k: function(x) for k, x in values.items() if x is not None})
