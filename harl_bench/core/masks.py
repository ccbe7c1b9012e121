"""Names in a folder of masks: where each image's mask lies, and the manifests beside the masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harl_bench.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

MASK = "_mask"  # what many tools put between an image's name and the suffix of its mask
MANIFEST = re.compile(r"manifest(-\d+of\d+)?\.csv")


def mask_name(image: str) -> str:
    """Return the name of an image's mask: the same path with the suffix .png (official layout)."""
    return os.path.splitext(image)[0] + ".png"


def mask_path(image: Path) -> Path:
    """Return `mask_name` of a path."""
    return Path(mask_name(image.as_posix()))


def manifest_name(part: tuple[int, int] | None = None) -> str:
    """Return the name of the manifest of all masks, or of part i of n."""
    return f"manifest-{part[0]}of{part[1]}.csv" if part else "manifest.csv"


def manifests_in(folder: Path) -> list[Path]:
    """Return all manifests of a mask folder, sorted by name; none where there is no folder."""
    return sorted(path for path in folder.glob("manifest*.csv") if MANIFEST.fullmatch(path.name))


def refuse_shared(
    pairs: Iterable[tuple[str, str]], where: object, next: str = "rename one of them"
) -> None:
    """Look for a mask that would serve two images (a.jpg and a.png).

    Args:
        pairs: (image, mask).
        where, next: for the message.

    Raises:
        DataError: there is one.
    """
    users: dict[str, str] = {}
    for image, mask in pairs:
        if users.setdefault(mask, image) != image:
            seen = f"{mask} for {users[mask]} and {image}"
            raise DataError("two images would share one mask", where=where, seen=seen, next=next)


def masks_by_stem(names: Iterable[str]) -> dict[str, str]:
    """Return mask files (relative, with "/") by their path without suffix; .png comes first."""
    table: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (not name.endswith(".png"), name)):
        table.setdefault(os.path.splitext(name)[0], name)
    return table


def mask_of(masks: Mapping[str, str], image: str) -> str | None:
    """Return the mask of an image, from `masks_by_stem`; None where there is none.

    It has the same path: x.png (the official layout), else x_mask.png and the like, else x.PNG,
    x.jpg or any other suffix.
    """
    stem = os.path.splitext(image)[0]
    same = masks.get(stem)
    if same is not None and same.endswith(".png"):
        return same
    return masks.get(stem + MASK) or same


def pair_masks(images: Iterable[str], masks: Iterable[str], where: object) -> dict[str, str]:
    """Return the mask of each image that has one, by `mask_of`; all are relative paths with "/".

    Args:
        where: the folder of the masks, for the message.

    Raises:
        DataError: one mask would serve two images.
    """
    table = masks_by_stem(masks)
    pairs = {image: mask for image in images if (mask := mask_of(table, image)) is not None}
    refuse_shared(pairs.items(), where, next="name each mask as its image, with the suffix .png")
    return pairs


def masks_beside(names: Sequence[str]) -> set[str]:
    """Return the files x_mask.png beside an x.jpg."""
    suffix = f"{MASK}."  # nearly no name has it, and there may be millions
    found = {n for n in names if suffix in n and os.path.splitext(n)[0].endswith(MASK)}
    stems = {os.path.splitext(name)[0] for name in names} if found else set[str]()
    return {name for name in found if os.path.splitext(name)[0].removesuffix(MASK) in stems}


def refuse_swapped(
    images: Sequence[Image.Image], masks: Sequence[Image.Image], where: object
) -> None:
    """Compare a few images (RGB) with the files given as their masks (RGB).

    Raises:
        UsageError: all images are black and white, and all masks have colors.
    """
    if images and all(map(black_and_white, images)) and all(map(_colored, masks)):
        raise UsageError(
            "images and masks are swapped",
            where=where,
            seen="images in black and white, masks in colors",
            next="give the two folders the other way round",
        )


def black_and_white(rgb: Image.Image) -> bool:
    """Return whether an image may be a mask. JPEG blurs outlines: a few pixels may lie between."""
    import numpy as np

    values = np.asarray(rgb)
    return bool((np.minimum(values, 255 - values) <= 16).mean() > 0.95) and not _colored(rgb)


def _colored(rgb: Image.Image) -> bool:
    import numpy as np

    values = np.asarray(rgb).astype(np.int16)
    return bool((values.max(axis=2) - values.min(axis=2) > 16).mean() > 0.01)
