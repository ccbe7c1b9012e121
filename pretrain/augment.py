"""The views T and T' of HARL's Table A1 (BYOL's), with one geometric draw for an image and its
mask.

Images are PIL RGB, masks PIL "L" with values 0 and 255. All randomness comes from the generator
passed in.
"""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from harl_bench.core.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain import colors
from pretrain.colors import Pixels
from pretrain.views import View

MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)
Rng = np.random.Generator
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def crop(
    image: Image.Image, mask: Image.Image, box: Box, recipe: View, size: int, rng: Rng
) -> tuple[Pixels, Tensor, NDArray[np.float32]]:
    """The geometric half of a view: box and flips, drawn once for image and mask.

    Args:
        image: RGB, any size.
        mask: "L", the image's size.
        size: side of the view in pixels.

    Returns:
        [size, size, 3] RGB, the mask [1, size, size] uint8 of 0 and 1, and the colors' draw, still
        to be applied.
    """
    image, mask = image.crop(box), mask.crop(box)
    threshold = 127
    if recipe.double_resize:
        scale = size / min(image.size)
        short = (max(size, round(image.width * scale)), max(size, round(image.height * scale)))
        image = image.resize(short, Image.Resampling.BICUBIC)
        mask = mask.resize(short, Image.Resampling.BILINEAR)
        mask = mask.resize((size, size), Image.Resampling.BILINEAR)
        threshold = 0
    pixels = resize(image, size)
    levels = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
    cut = (levels > threshold).view(np.uint8)
    for probability, axis in ((recipe.flip, 1), (recipe.vertical_flip, 0)):
        if probability and rng.random() < probability:
            pixels, cut = cv2.flip(pixels, axis), cv2.flip(cut, axis)
    drawn = colors.draw(recipe, rng)
    return pixels, torch.from_numpy(cut)[None], drawn


def resize(image: Image.Image, size: int) -> Pixels:
    """Bicubic with antialiasing to [size, size, 3]: within two levels of Pillow, thrice as fast."""
    # 8-bit channels-last is the fast path.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    squared: Pixels = resized[0].permute(1, 2, 0).contiguous().numpy()
    return squared


def chosen_box(mask: Image.Image, recipe: View, rng: Rng) -> Box:
    """A random crop box; with `mask_boxes` the first of `crop_tries` that shows enough foreground,
    else the last of them; with `mask_center` one centred, as far as the borders allow, on a random
    pixel of the foreground.
    """
    width, height = mask.size
    if recipe.centre:
        return middle(width, height)
    box = crop_box(width, height, recipe, rng)
    if recipe.crop == "random" or mask.getextrema() == (0, 0):
        return box
    foreground = np.asarray(mask) > 127
    if recipe.crop == "mask_center":
        y, x = np.unravel_index(rng.choice(np.flatnonzero(foreground)), foreground.shape)
        w, h = box[2] - box[0], box[3] - box[1]
        left = min(max(int(x) - w // 2, 0), width - w)
        top = min(max(int(y) - h // 2, 0), height - h)
        return left, top, left + w, top + h
    for _ in range(recipe.crop_tries - 1):
        left, top, right, bottom = box
        if foreground[top:bottom, left:right].mean() > recipe.min_foreground:
            break
        box = crop_box(width, height, recipe, rng)
    return box


def middle(width: int, height: int) -> Box:
    """The central square of 7/8 of the short side: 224 of 256 px."""
    side = round(min(width, height) * 7 / 8)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def crop_box(width: int, height: int, recipe: View, rng: Rng) -> Box:
    """An Inception crop (left, top, right, bottom): area uniform, aspect log-uniform, ten tries,
    then the centre.

    The rule, the rounding and the fallback are those of torchvision's RandomResizedCrop.
    """
    low, high = (math.log(a) for a in recipe.crop_aspect)
    for _ in range(10):
        area = width * height * rng.uniform(*recipe.crop_area)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, recipe.crop_aspect[0]), recipe.crop_aspect[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def to_tensor(pixels: Pixels, std: tuple[float, float, float] | None = None) -> Tensor:
    """[H, W, 3] RGB, 8 bits, to [3, H, W] float32, ImageNet-normalised; `std` as `normalise`."""
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), std)


def normalise(images: Tensor, std: tuple[float, float, float] | None = None) -> Tensor:
    """[..., 3, H, W] of 0 to 255 to float32, normalised; `std` in units of white or ImageNet's."""
    mean, deviation = (
        colors.constant(values, images.device) for values in (IMAGENET_MEAN, std or IMAGENET_STD)
    )
    return (images.float() - mean).div_(255 * deviation if std else deviation)


def to_image(view: Tensor) -> Image.Image:
    """Undo `to_tensor`, for looking."""
    values = (view * STD + MEAN).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy(), "RGB")
