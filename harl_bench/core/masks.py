"""Names in a folder of masks: where each image's mask lies, and the manifests beside the masks."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from harl_bench.core.errors import DataError

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
