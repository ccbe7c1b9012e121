"""The views T and T' of HARL's Table A1 (BYOL's), with one geometric draw for a picture and its mask.

Pictures are PIL RGB, masks PIL "L" with values 0 and 255. All randomness comes from the generator passed in.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from harl_bench.convert.formats import IMAGENET

MEAN = torch.tensor(IMAGENET.pixel_mean).view(3, 1, 1)
STD = torch.tensor(IMAGENET.pixel_std).view(3, 1, 1)
Rng = np.random.Generator


@dataclass(frozen=True)
class View:
    """Probabilities and ranges of one random transformation, in the order they are applied (Table A1)."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


T, T_PRIME = View(blur=1.0, solarize=0.0), View(blur=0.1, solarize=0.2)
BYOL_VIEWS = (T, T_PRIME)


def view(picture: Image.Image, mask: Image.Image, recipe: View, size: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """One augmented view and its aligned mask.

    Args:
        picture: RGB, any size.
        mask: "L", the picture's size.
        size: side of the view in pixels.

    Returns:
        [3, size, size] float32 normalised, and [1, size, size] float32 of 0 and 1.
    """
    box = crop_box(picture.width, picture.height, recipe, rng)
    crop = picture.crop(box).resize((size, size), Image.Resampling.BICUBIC)
    crop_mask = mask.crop(box).resize((size, size), Image.Resampling.NEAREST)
    if rng.random() < recipe.flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crop_mask = crop_mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop = colours(crop, recipe, rng)
    return to_tensor(crop), torch.from_numpy(np.asarray(crop_mask) > 127).float()[None]


def crop_box(width: int, height: int, recipe: View, rng: Rng) -> tuple[int, int, int, int]:
    """An Inception crop (left, top, right, bottom): area uniform, aspect log-uniform, ten tries, then the centre.

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


def colours(picture: Image.Image, recipe: View, rng: Rng) -> Image.Image:
    """Jitter, greyscale, blur and solarise, each with its probability."""
    if rng.random() < recipe.jitter:
        picture = jitter(picture, recipe, rng)
    if rng.random() < recipe.grayscale:
        picture = F.rgb_to_grayscale(picture, num_output_channels=3)
    if rng.random() < recipe.blur:
        picture = blur(picture, rng.uniform(*recipe.blur_sigma))
    if rng.random() < recipe.solarize:
        picture = F.solarize(picture, threshold=128)
    return picture


def jitter(picture: Image.Image, recipe: View, rng: Rng) -> Image.Image:
    """Brightness, contrast, saturation and hue in random order.

    BYOL's own brightness is additive; here it is torchvision's multiplicative form, as in HARL's PyTorch code.
    """
    changes = (
        (F.adjust_brightness, rng.uniform(1 - recipe.brightness, 1 + recipe.brightness)),
        (F.adjust_contrast, rng.uniform(1 - recipe.contrast, 1 + recipe.contrast)),
        (F.adjust_saturation, rng.uniform(1 - recipe.saturation, 1 + recipe.saturation)),
        (F.adjust_hue, rng.uniform(-recipe.hue, recipe.hue)),
    )
    for i in rng.permutation(len(changes)):
        adjust, amount = changes[i]
        picture = adjust(picture, amount)
    return picture


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur, kernel a tenth of the side and odd: 23 for 224 px. OpenCV has 16 times torchvision's speed."""
    kernel = 2 * (picture.width // 20) + 1
    return Image.fromarray(cv2.GaussianBlur(np.asarray(picture), (kernel, kernel), sigma))


def to_tensor(picture: Image.Image) -> Tensor:
    """PIL RGB to [3, H, W] float32, ImageNet-normalised."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    return (values - MEAN) / STD


def to_picture(view: Tensor) -> Image.Image:
    """Undo `to_tensor`, for looking."""
    values = (view * STD + MEAN).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy(), "RGB")
