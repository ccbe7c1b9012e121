"""What the data hand to a method.

Letters: V views, B batch, n local crops, H W pixels, W (of colors) numbers that a color draw takes.
"""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T", bound=Any)


@dataclass(frozen=True)
class Scene:
    """What `saliency_crop` sees of a batch besides its two global views; n local crops.

    Args:
        index: [B] int64, which images of the data set they are.
        whole: [B, 3, H, W] uint8, the whole images.
        boxes: [2 + n, B, 4] of the global views and the local crops, in shares of the image.
        local: [n, B, 3, S, S] as Batch.views.
        colors: [n, B, W] as Batch.colors.
    """

    index: Tensor
    whole: Tensor
    boxes: Tensor
    local: Tensor
    colors: Tensor | None = None

    def pin_memory(self) -> "Scene":
        """What travels to a GPU, in memory from which it does so while the GPU computes."""
        return _pinned(self, "whole", "boxes", "local")


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Args:
        views: [V, B, 3, H, W] float32, normalised; two views, one for the supervised baseline.
        masks: [V, B, 1, S, S] on the method's grid of cells, or [V, B, 1, H, W] in pixels; 1 is
            foreground, zeros where there is no mask. uint8 until the batch is on its device,
            float32 there.
        has_mask: [B] bool, False where the image has no mask or a rejected one.
        unreadable: files that could not be decoded and were replaced by their neighbour, with the
            reason.
        error: a fault that must stop the run.
        labels: [B] int64, the class of each image, filled by the loop where classes are known.
        colors: [V, B, W] draws of pretrain/colors.py that the views, uint8 as yet, still await;
            None: they are done.
        std: what these views are to be divided by, in units of white.
        scene: more of the images, for methods that crop by saliency.
    """

    views: Tensor
    masks: Tensor
    has_mask: Tensor
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None
    labels: Tensor | None = None
    colors: Tensor | None = None
    std: tuple[float, float, float] | None = None
    scene: Scene | None = None

    def pin_memory(self) -> "Batch":
        """As `Scene.pin_memory`; torch's loader asks for it."""
        return _pinned(self, "views", "masks", "has_mask", "scene")


def _pinned(tensors: T, *names: str) -> T:
    values = {name: getattr(tensors, name) for name in names}
    return replace(
        tensors, **{name: value.pin_memory() for name, value in values.items() if value is not None}
    )
