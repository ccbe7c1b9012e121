"""Every label read once before a training: what would stop it hours later stops it now."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.images import image_size, read_rgb
from harl_bench.core.progress import Tracker
from harl_bench.segmentation.confusion import IGNORED, Labels
from harl_bench.segmentation.datasets.dataset import Split


def require_usable(split: Split, *, scored: bool) -> None:
    """Read all labels of a split; with `scored` also decode its images, as a score needs them all.

    Raises:
        DataError: a label is unreadable, of another size than its image, has values that are no
            class, or nothing but 255.
    """
    check = partial(require_item, split, scored=scored)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Tracker(f"check labels of {split.name}", len(split.items)) as tracker,
    ):
        for _ in pool.map(check, range(len(split.items))):
            tracker.advance()


def require_size(label: Labels, size: tuple[int, int], path: str) -> None:
    """Raise a DataError where a label is not of its image's (width, height)."""
    height, width = label.shape
    if (width, height) != size:
        raise DataError(
            "label and image differ in size",
            where=path,
            seen=f"label {width} x {height}, image {size[0]} x {size[1]}",
            next="take both from the same archive",
        )


def require_item(split: Split, index: int, *, scored: bool) -> None:
    """Read one label, and its image or, without `scored`, its size; see `require_usable`."""
    image, path = split.items[index]
    label = split.label(index)
    try:
        size = read_rgb(image).size if scored else image_size(image)
    except UnreadableError:
        if scored:
            raise
        return  # the training counts it among those that it skips
    require_size(label, size, path)
    if (label == IGNORED).all():
        raise DataError(
            "a label without any class: every pixel is ignored",
            where=path,
            seen="255 alone" if split.table[0] == 0 else "ids that are not evaluated",
            next="replace it, or take the image out of the list",
        )
