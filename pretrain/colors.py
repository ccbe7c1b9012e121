"""The color half of a view: drawn once, applied to an image on the CPU, or to a whole batch where
training happens.

Order as in Table A1: jitter (its four parts in random order), greyscale, blur, solarise. Both ways
take the same draws; their pixels differ by the CPU's rounding to 8 bits after each operation.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harl_bench.nn.blur import gaussian_blur
from harl_bench.nn.runtime import sent
from pretrain.views import View

# A draw is [WIDTH] float32: the jitter's four factors, the order they come in, greyscale or not,
# blur's sigma (0: no blur), solarise or not.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDER, GREY, SIGMA, SOLARISE = slice(4, 8), 8, 9, 10
WIDTH = 11
UNCHANGED = (1.0, 1.0, 1.0, 0.0)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in PIL and torchvision
SOLARISE_FROM = 128
LEVELS = np.arange(256, dtype=np.float32)
SOLARISED = np.where(LEVELS < SOLARISE_FROM, LEVELS, 255 - LEVELS).astype(np.uint8)
Pixels = NDArray[np.uint8]
BatchChange = Callable[[Tensor, Tensor], Tensor]  # images [n, 3, H, W], amounts [n, 1, 1, 1]


def draw(recipe: View, rng: np.random.Generator) -> NDArray[np.float32]:
    """What happens to one view's colors, [WIDTH]."""
    drawn = np.zeros(WIDTH, np.float32)
    drawn[:4] = UNCHANGED
    if rng.random() < recipe.jitter:
        spans = np.array([recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue])
        drawn[:4] += rng.uniform(-spans, spans)
        drawn[ORDER] = rng.permutation(4)
    drawn[GREY] = rng.random() < recipe.grayscale
    if rng.random() < recipe.blur:
        drawn[SIGMA] = rng.uniform(*recipe.blur_sigma)
    drawn[SOLARISE] = rng.random() < recipe.solarize
    return drawn


def kernel_px(side: int) -> int:
    """Side of the blur's kernel, a tenth of the image's and odd: 23 for 224 px."""
    return 2 * (side // 20) + 1


# One image, 8 bits a channel, through tables and OpenCV


def apply(pixels: Pixels, drawn: NDArray[np.float32]) -> Pixels:
    """The colors of a draw: [H, W, 3] RGB."""
    if tuple(drawn[:4]) != UNCHANGED:
        for part in drawn[ORDER].astype(int):
            pixels = JITTER[part](pixels, float(drawn[part]))
    if drawn[GREY]:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if drawn[SIGMA]:
        pixels = blur(pixels, float(drawn[SIGMA]))
    return cv2.LUT(pixels, SOLARISED) if drawn[SOLARISE] else pixels


def brightness(pixels: Pixels, factor: float) -> Pixels:
    """v f.

    BYOL's own brightness is additive; here it is torchvision's factor, as in HARL's PyTorch code.
    """
    return _through(pixels, factor * LEVELS)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    """f v + (1 - f) m, m the mean luma of the image."""
    m = float(np.dot(cv2.mean(pixels)[:3], LUMA))
    return _through(pixels, factor * LEVELS + (1 - factor) * m)


def saturation(pixels: Pixels, factor: float) -> Pixels:
    """f v + (1 - f) luma."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    blended: Pixels = cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)
    return blended


def hue(pixels: Pixels, shift: float) -> Pixels:
    """Turn the hue by a share of the circle, in 256 steps as Pillow does."""
    steps = round(shift * 256) % 256
    if not steps:
        return pixels
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)  # 256 hues: sums wrap as the circle does
    hsv[..., 0] += np.uint8(steps)
    turned: Pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur; the kernel ends at four sigmas, where weights no longer move 8-bit values."""
    kernel = min(kernel_px(pixels.shape[1]), 2 * math.ceil(4 * sigma) + 1)
    blurred: Pixels = cv2.GaussianBlur(pixels, (kernel, kernel), sigma)
    return blurred


def _through(pixels: Pixels, table: NDArray[np.float32]) -> Pixels:
    mapped: Pixels = cv2.LUT(pixels, np.clip(np.rint(table), 0, 255).astype(np.uint8))
    return mapped


JITTER = (brightness, contrast, saturation, hue)


# A whole batch, in floating point, on any device


@torch.no_grad()
def apply_batch(images: Tensor, drawn: Tensor) -> Tensor:
    """The colors of each image's draw.

    Args:
        images: [N, 3, H, W] uint8 or float, 0 to 255.
        drawn: [N, WIDTH] on the CPU: which images an operation concerns is then known without
            asking the device.

    Returns:
        [N, 3, H, W] float32, 0 to 255, on the images' device.
    """
    x = images.float()
    x = x.clone() if x is images else x
    changes, rows, amounts = [], [], []
    for change, concerned, amount in _changes(drawn, kernel_px(x.shape[-1])):
        index = concerned.nonzero()[:, 0]
        if len(index):
            changes.append(change)
            rows.append(index)
            amounts.append(amount[index])
    if changes:
        counts = [len(index) for index in rows]
        # Two copies to the device, however many changes there are.
        sent_rows, sent_amounts = (
            torch.split(sent(torch.cat(parts), x.device), counts) for parts in (rows, amounts)
        )
        for change, index, amount in zip(changes, sent_rows, sent_amounts, strict=True):
            x[index] = change(x[index], amount.view(-1, 1, 1, 1)).clamp(0, 255)
    return x


def _changes(drawn: Tensor, kernel: int) -> Iterator[tuple[BatchChange, Tensor, Tensor]]:
    """Yield each change, the images [N] bool that it concerns, and its amount for each, [N]."""
    jittered = (drawn[:, :4] != torch.tensor(UNCHANGED)).any(dim=1)
    for position in range(4):
        for part, change in enumerate(BATCH_JITTER):
            yield change, jittered & (drawn[:, ORDER][:, position] == part), drawn[:, part]
    blurred = partial(_blur, kernel=kernel)
    for part, change in ((GREY, _grey), (SIGMA, blurred), (SOLARISE, _solarise)):
        yield change, drawn[:, part] > 0, drawn[:, part]


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return [3, 1, 1] float32, a number for each channel, copied to the device once."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def luma(x: Tensor) -> Tensor:
    """[N, 3, H, W] to [N, 1, H, W]."""
    return (x * constant(LUMA, x.device)).sum(dim=1, keepdim=True)


def _grey(x: Tensor, _: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def _blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    return gaussian_blur(x, kernel, sigma.flatten())


def _solarise(x: Tensor, _: Tensor) -> Tensor:
    return torch.where(x < SOLARISE_FROM - 0.5, x, 255 - x)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x + (1 - factor) * luma(x).mean(dim=(2, 3), keepdim=True)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x + (1 - factor) * luma(x)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Through hue, chroma and value, and back by the closed form of the six sectors.

    channel = value - chroma max(0, min(k, 4 - k, 1)), k = (n + 6 hue) mod 6, n = 5, 3, 1.
    """
    value, top = x.max(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    # The channels after and before the top one: green and blue, where that is red.
    after, before = (x.roll(by, dims=1).gather(1, top) for by in (-1, 1))
    sextant = (after - before) / chroma.clamp(min=1e-6) + 2 * top + 6 * shift
    k = (sextant + constant((5.0, 3.0, 1.0), x.device)) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


BATCH_JITTER: tuple[BatchChange, ...] = (lambda x, factor: x * factor, _contrast, _saturation, _hue)
