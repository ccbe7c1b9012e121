"""Saliency maps that a network makes of its own features, crops drawn from them, and the crops'
scores.

For `saliency_crop` (Chen et al., arXiv 2302.11461). Only the abstract could be read: a map from the
model's own output guides where positive pairs are cropped, and their losses are weighted by
saliency. The equations here are a reconstruction (docs/fidelity.md 5); whoever has the paper
replaces `saliency_map` or `weights`, one function each.

Letters: B batch, C channels, h, w rows and columns of the feature map, S side of a stored map, n
crops of an image. Boxes are (left, top, right, bottom), in pixels or as shares of the image.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor, nn

from harl_bench.core.lookup import lookup
from pretrain.augment import Box, Rng, crop_box
from pretrain.views import View

SIDE = 7  # of a stored map: ResNet's grid at 224 px
SLOTS = 3


def cosine_map(F: Tensor) -> Tensor:
    """s_ij = max(0, cos(F_ij, v)), v = GAP(F): [B, C, h, w] to [B, h, w]."""
    v = F.mean(dim=(2, 3), keepdim=True)
    return nnf.cosine_similarity(F, v, dim=1).clamp(min=0)


def activation_map(F: Tensor) -> Tensor:
    """The sum over channels (SCDA, Wei et al. 2017): [B, C, h, w] to [B, h, w]."""
    return F.sum(dim=1)


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": cosine_map,
    "projected": cosine_map,  # of the projections of all locations, which the method makes
    "activation": activation_map,
}


def saliency_map(F: Tensor, kind: str = "cosine") -> Tensor:
    """The map of each image, from 0 to 1.

    Args:
        F: [B, C, h, w] features, or projections, of whole images.
        kind: one of MAPS.

    Returns:
        [B, S, S] float32 without gradient; all zero where the features are the same everywhere.
    """
    with torch.no_grad():
        s = lookup(MAPS, kind, "saliency map")(F.float())
        s = nnf.adaptive_avg_pool2d(s[:, None], SIDE)[:, 0]
        low, high = s.amin(dim=(1, 2), keepdim=True), s.amax(dim=(1, 2), keepdim=True)
        flat = high - low <= 1e-6 * high.abs().clamp(min=1e-12)  # rounding is no saliency
        return torch.where(flat, 0.0, (s - low) / (high - low).clamp(min=1e-12))


def box_means(maps: Tensor, boxes: Tensor) -> Tensor:
    """S_i, the mean of an image's map inside each of its boxes; a cell counts by the share that is
    covered.

    Args:
        maps: [B, S, S].
        boxes: [n, B, 4], in shares of the image.

    Returns:
        [n, B] float32.
    """
    rows = _overlap(boxes[..., 1], boxes[..., 3], maps.shape[1])
    columns = _overlap(boxes[..., 0], boxes[..., 2], maps.shape[2])
    total = torch.einsum("nbi,bij,nbj->nb", rows, maps.float(), columns)
    return total / (rows.sum(-1) * columns.sum(-1)).clamp(min=1e-12)


def _overlap(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """How much of each of `cells` equal parts of [0, 1] is covered, in cells: [..., cells]."""
    edges = torch.arange(cells, device=start.device)
    last = (end[..., None] * cells).clamp(max=edges + 1)
    first = (start[..., None] * cells).clamp(min=edges)
    return (last - first).clamp(min=0)


def weights(scores: Tensor) -> Tensor:
    """w_i = S_i / sum_j S_j over an image's crops, uniform when all are 0: [n, B] to [n, B]."""
    total = scores.sum(dim=0, keepdim=True)
    uniform = torch.full_like(scores, 1 / max(len(scores), 1))
    return torch.where(total > 0, scores / total.clamp(min=1e-12), uniform)


def guided_box(
    width: int,
    height: int,
    recipe: View,
    saliency: NDArray[Any],
    rng: Rng,
    *,
    temperature: float = 1.0,
) -> Box:
    """A crop around a point drawn from the map; its size is drawn as without guidance.

    A cell is drawn with chance s^(1 / temperature), the centre uniformly within it, and the box
    moved into the image. A map that is the same everywhere guides nothing: the box is `crop_box`'s,
    which no such draw would give (moved boxes heap up at the edges).

    Args:
        saliency: [S, S], not negative, of any scale.
    """
    left, top, right, bottom = crop_box(width, height, recipe, rng)
    s = np.asarray(saliency, dtype=np.float64)
    if s.min() == s.max():
        return left, top, right, bottom
    w, h = right - left, bottom - top
    chances = (s / s.max()) ** (1 / temperature)
    i, j = divmod(int(rng.choice(s.size, p=(chances / chances.sum()).ravel())), s.shape[1])
    y, x = (i + rng.uniform()) * height / s.shape[0], (j + rng.uniform()) * width / s.shape[1]
    left, top = min(max(round(x - w / 2), 0), width - w), min(max(round(y - h / 2), 0), height - h)
    return left, top, left + w, top + h


def salient_box(
    width: int, height: int, recipe: View, saliency: NDArray[Any], rng: Rng, *, tries: int = 5
) -> Box:
    """The first of `tries` plain crops with a mean above the map's median, else the last one."""
    s = torch.from_numpy(np.ascontiguousarray(saliency, dtype=np.float32))[None]
    median = float(np.median(saliency))
    for _ in range(tries):
        box = crop_box(width, height, recipe, rng)
        if float(box_means(s, shares(box, width, height)[None, None])) > median:
            break
    return box


def shares(box: Box, width: int, height: int) -> Tensor:
    """A box in pixels as shares of its image: [4] float32."""
    return torch.tensor(box, dtype=torch.float32) / torch.tensor([width, height, width, height])


class MapMemory(nn.Module):
    """The map of every image, averaged over epochs; cropping in the data workers reads it without a
    forward pass.

    Data workers run ahead of the training step, by less than an epoch. So an epoch crops by the
    maps as they stood at the end of the last but one: three slots, one that workers may still read,
    one finished, one in work. What is seen then depends neither on the number of workers nor on an
    interruption. The slots lie in shared memory and go into the checkpoint: 3 x 49 bytes an image.

    Args:
        n: images.
        momentum: m of `map <- m map + (1 - m) s`; an image's first map is taken whole.
    """

    def __init__(self, n: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.slots = torch.zeros(SLOTS, n, SIDE, SIDE, dtype=torch.uint8)
        self.slots.share_memory_()  # type: ignore[no-untyped-call]
        self.epoch = 0

    def readable(self, epoch: int, index: int) -> NDArray[np.uint8]:
        """[S, S] for cropping an image in an epoch; all zero while it has no map."""
        slot: NDArray[np.uint8] = self.slots[(epoch - 2) % SLOTS, index].numpy()
        return slot if epoch >= 2 else np.zeros_like(slot)

    def begin(self, epoch: int) -> None:
        """Start an epoch's slot from the one before; the call is needless within an epoch."""
        if epoch != self.epoch:
            self.slots[epoch % SLOTS].copy_(self.slots[(epoch - 1) % SLOTS])
            self.epoch = epoch

    def update(self, index: Tensor, s: Tensor) -> None:
        """Average the maps [B, S, S] in 0..1 of the images `index` [B] into the epoch's slot."""
        slot, index = self.slots[self.epoch % SLOTS], index.cpu()
        before = slot[index].float()
        fresh = (s.detach().float().cpu() * 255).clamp(0, 255)
        seen = before.amax(dim=(1, 2), keepdim=True) > 0
        averaged = self.momentum * before + (1 - self.momentum) * fresh
        slot[index] = torch.where(seen, averaged, fresh).round().byte()

    def current(self, index: Tensor) -> Tensor:
        """[B, S, S] float32 in 0..1, as far as this epoch has got."""
        slot: Tensor = self.slots[self.epoch % SLOTS]
        return slot[index.cpu()].float() / 255

    def get_extra_state(self) -> dict[str, Any]:
        """Slots and epoch: not a buffer, since `.to(device)` would take it from the workers."""
        return {"slots": self.slots, "epoch": self.epoch}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """In place: the workers hold this memory."""
        self.slots.copy_(state["slots"])
        self.epoch = int(state["epoch"])
