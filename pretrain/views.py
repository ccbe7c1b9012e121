"""The random views of each method by name. Numbers are those of the papers' own code."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pretrain.config import MaskedConfig, PretrainConfig


@dataclass(frozen=True)
class View:
    """Probabilities and ranges of one random transformation, in the order of Table A1."""

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
    # or mask_boxes, mask_center: the official HARL code's crops that look for the foreground
    crop: str = "random"
    min_foreground: float = 0.2
    crop_tries: int = 5
    vertical_flip: float = 0.0
    # official HARL code: short side to `size`, then squashed; the mask softly, then > 0
    double_resize: bool = False
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    centre: bool = False  # no random crop, but the middle


T, T_PRIME = View(blur=1.0, solarize=0.0), View(blur=0.1, solarize=0.2)
BYOL_VIEWS = (T, T_PRIME)
# SimCLR, appendix A: color strength 1.0 (jitter 0.8, 0.8, 0.8, 0.2), blur with probability 0.5.
SIMCLR = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
# MoCo v2 (--aug-plus) and SimSiam: crops from a fifth of the image on, jitter 0.4, 0.4, 0.4, 0.1.
# Departures: they flip last, which commutes with the others; their blur has no fixed kernel, here a
# tenth of the side.
MOCO_V2 = View(crop_area=(0.2, 1.0), saturation=0.4, blur=0.5)
# torchvision's reference for ResNet-50 (He et al. 2016): crop and flip only.
SUPERVISED = View(jitter=0.0, grayscale=0.0, blur=0.0)
# The shipped HARL script (docs/fidelity.md 1.1): vertical flips, resized twice, soft masks, a
# misprinted deviation.
OFFICIAL = {"vertical_flip": 0.5, "double_resize": True, "std": (0.228, 0.224, 0.225)}
VIEWS: dict[str, tuple[View, ...]] = {
    "byol": BYOL_VIEWS,
    "simclr": (SIMCLR, SIMCLR),
    "mocov2": (MOCO_V2, MOCO_V2),
    "supervised": (SUPERVISED,),
    "harl_official_pt": tuple(replace(view, **OFFICIAL) for view in BYOL_VIEWS),  # type: ignore[arg-type]
}
# What a network is measured on.
CENTRE = View(centre=True, flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0)


def views_of(config: PretrainConfig) -> Sequence[View]:
    """Return the views of a configuration, with its crops, its strength of colors and its blur."""
    rule: dict[str, Any] = {}
    if isinstance(config, MaskedConfig):
        rule = {
            "crop": config.crop,
            "min_foreground": config.min_foreground,
            "crop_tries": config.crop_tries,
        }
    if config.crop_area is not None:
        rule["crop_area"] = config.crop_area
    if config.blur is not None:
        rule["blur"] = config.blur
    views = [replace(view, **rule) for view in VIEWS[config.views]]
    s = config.color_strength  # SimCLR's, appendix A
    spans = ("brightness", "contrast", "saturation", "hue")
    return [replace(view, **{name: s * getattr(view, name) for name in spans}) for view in views]


def pixel_std(config: PretrainConfig) -> tuple[float, ...]:
    """The deviations that the views of a configuration are divided by, in levels of 0 to 255."""
    return tuple(255 * value for value in VIEWS[config.views][0].std)
