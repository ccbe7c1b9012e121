"""What goes into a detector and what comes out: one record for the objects of one image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = (
    list[NDArray[np.float64]] | Tensor
)  # polygons, each x0 y0 x1 y1 ..., or a bool bitmask [H, W]


@dataclass
class Instances:
    """The objects of one image; ground truth and predictions fill different fields.

    Attributes:
        image_size: (height, width) in pixels of the image that the boxes refer to.
        gt_boxes: [R, 4] float32 xyxy. gt_classes: [R] int64 in 0..K-1. gt_masks: one `Mask` per
            object.
        pred_boxes: [R, 4] float32. scores: [R] float32 in 0..1, descending. pred_classes: [R]
            int64.
        pred_masks: [R, M, M] float32 probabilities inside each box, or [R, H, W] bool after
            post-processing.
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
        """A copy with its tensors on `device`; ground-truth masks stay, for their targets are cut
        on the CPU.
        """
        return self._each(lambda value: value.to(device) if isinstance(value, Tensor) else value)

    def __getitem__(self, keep: Tensor) -> Instances:
        """The objects chosen by a bool mask or by int64 indices [R']."""
        index = (keep.nonzero().flatten() if keep.dtype == torch.bool else keep).tolist()
        return self._each(
            lambda value: value[keep] if isinstance(value, Tensor) else [value[i] for i in index]
        )

    def _each(self, change: Any) -> Instances:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "image_size"}
        return replace(
            self, **{name: change(value) for name, value in values.items() if value is not None}
        )
