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
    crop: str = "random"  # or mask_boxes, mask_center: the official HARL code's crops that look for the foreground
    min_foreground: float = 0.2
    crop_tries: int = 5
    vertical_flip: float = 0.0
    double_resize: bool = False  # official HARL code: short side to `size`, then squashed; the mask softly, then > 0
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    centre: bool = False  # no random crop, but the middle


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
    box = middle(picture.width, picture.height) if recipe.centre else chosen_box(mask, recipe, rng)
    crop, crop_mask = picture.crop(box), mask.crop(box)
    threshold = 127
    if recipe.double_resize:
        scale = size / min(crop.size)
        short = (max(size, round(crop.width * scale)), max(size, round(crop.height * scale)))
        crop = crop.resize(short, Image.Resampling.BICUBIC)
        crop_mask = crop_mask.resize(short, Image.Resampling.BILINEAR).resize((size, size), Image.Resampling.BILINEAR)
        threshold = 0
    crop = crop.resize((size, size), Image.Resampling.BICUBIC)
    crop_mask = crop_mask.resize((size, size), Image.Resampling.NEAREST)
    for probability, turn in ((recipe.flip, "FLIP_LEFT_RIGHT"), (recipe.vertical_flip, "FLIP_TOP_BOTTOM")):
        if probability and rng.random() < probability:
            crop, crop_mask = (p.transpose(Image.Transpose[turn]) for p in (crop, crop_mask))
    crop = colours(crop, recipe, rng)
    return to_tensor(crop, recipe.std), torch.from_numpy(np.asarray(crop_mask) > threshold).float()[None]


def chosen_box(mask: Image.Image, recipe: View, rng: Rng) -> tuple[int, int, int, int]:
    """A random crop box; with `mask_boxes` the first of `crop_tries` that shows enough foreground, else the last of
    them; with `mask_center` one centred, as far as the borders allow, on a random pixel of the foreground."""
    width, height = mask.size
    box = crop_box(width, height, recipe, rng)
    if recipe.crop == "random" or mask.getextrema() == (0, 0):
        return box
    foreground = np.asarray(mask) > 127
    if recipe.crop == "mask_center":
        y, x = np.unravel_index(rng.choice(np.flatnonzero(foreground)), foreground.shape)
        w, h = box[2] - box[0], box[3] - box[1]
        left, top = min(max(int(x) - w // 2, 0), width - w), min(max(int(y) - h // 2, 0), height - h)
        return left, top, left + w, top + h
    for _ in range(recipe.crop_tries - 1):
        left, top, right, bottom = box
        if foreground[top:bottom, left:right].mean() > recipe.min_foreground:
            break
        box = crop_box(width, height, recipe, rng)
    return box


def middle(width: int, height: int) -> tuple[int, int, int, int]:
    """The central square of 7/8 of the short side: 224 of 256 px."""
    side = round(min(width, height) * 7 / 8)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


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


def to_tensor(picture: Image.Image, std: tuple[float, float, float] | None = None) -> Tensor:
    """PIL RGB to [3, H, W] float32, ImageNet-normalised; `std` in units of white, None for ImageNet's."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    return (values - MEAN) / (STD if std is None else 255 * torch.tensor(std).view(3, 1, 1))


def to_picture(view: Tensor) -> Image.Image:
    """Undo `to_tensor`, for looking."""
    values = (view * STD + MEAN).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy(), "RGB")
