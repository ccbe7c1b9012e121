"""A sample of images: decoded, and of the size that their annotations state."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from harl_bench.core.errors import DataError
from harl_bench.core.images import read_rgb
from harl_bench.doctor.finding import Finding, from_error

SAMPLE = 24  # images per split: enough to notice a broken archive, little enough for a network disk
T = TypeVar("T")


def spread(items: Sequence[T]) -> list[T]:
    """Return at most SAMPLE items, with both ends, where a broken copy of an archive shows."""
    if len(items) <= SAMPLE:
        return list(items)
    return [items[round(i * (len(items) - 1) / (SAMPLE - 1))] for i in range(SAMPLE)]


def decoded(
    what: str, images: Sequence[tuple[Path, tuple[int, int] | None]], unpack: str = ""
) -> Finding:
    """Decode images and compare them with the (width, height) that their annotations state."""
    for path, size in images:
        try:
            seen = read_rgb(path, exif=size is not None).size  # as the detectors' data are read
        except DataError as error:
            return from_error(what, error, unpack)
        if size is not None and seen != size:
            text = f"{path} is {seen[0]} x {seen[1]}, annotated {size[0]} x {size[1]}"
            hint = "images and annotations are not of the same release"
            return Finding("data", "fail", what, text, unpack, hint)
    return Finding("data", "ok", what, f"{len(images)} decoded")
