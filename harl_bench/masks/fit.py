"""The data of a fit: images paired with masks, or with pseudo-masks; processes to read them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from harl_bench.core.errors import DataError, UnreadableError, UsageError
from harl_bench.core.images import find_images, read_rgb
from harl_bench.core.masks import manifest_name, mask_path, pair_masks, refuse_swapped
from harl_bench.core.progress import log, track
from harl_bench.core.stopping import stoppable
from harl_bench.masks import make, makers, manifests, work
from harl_bench.masks.pool import pool
from harl_bench.masks.preview import spread

A = TypeVar("A")
B = TypeVar("B")
Pair = tuple[Path, Path]  # an image file and its mask file


def image_names(images: Path, limit: int | None) -> list[Path]:
    """Return the relative paths of images, `limit` of them, evenly spread over the class folders.

    Raises:
        DataError: no images.
    """
    names = find_images(images)
    return names if limit is None else spread(names, limit)


def pairs_of(images: Path, masks: Path, names: Sequence[Path]) -> list[Pair]:
    """Return each image with its mask, at the same relative path, without rejected masks.

    Raises:
        DataError: a mask is missing, or all were rejected.
        UsageError: images and masks are swapped.
    """
    rows = manifests.read(masks)
    rejected = {path for path, row in rows.items() if not row.valid}
    accepted = [name for name in names if name.as_posix() not in rejected]
    files = [path.as_posix() for path in find_images(masks)]
    matches = pair_masks([name.as_posix() for name in accepted], files, masks)
    missing = [name for name in accepted if name.as_posix() not in matches]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(accepted)} masks are missing",
            where=masks,
            seen=f"no {mask_path(missing[0])}",
            next="harl-bench masks make IMAGES --out ANOTHER-FOLDER",
        )
    pairs = [(images / name, masks / mask) for name, mask in matches.items()]
    if not pairs:
        raise DataError("every mask was rejected", where=masks, next="give other images or masks")
    sample = zip(*pairs[:: max(1, len(pairs) // 8)], strict=True)
    with contextlib.suppress(UnreadableError):  # fitting says which
        first, second = ([read_rgb(path) for path in paths] for paths in sample)
        refuse_swapped(first, second, where=f"IMAGES {images} and --masks {masks}")
    return pairs


def pseudo_masks(
    images: Path, out: Path, names: Sequence[Path], method: str, workers: int
) -> list[Pair]:
    """Make the missing pseudo-masks in the folder `out` and pair the images with them.

    Raises:
        UsageError: as `pseudo_work`.
        DataError: no image gave a mask, or too many could not be read.
    """
    job, done = pseudo_work(images, out, names, method)
    log.info("pseudo-masks by %s in %s: %d of %d are there", method, out, len(done), len(names))
    outcome = make.make_masks(
        job, list(names), done, manifest=out / manifest_name(), workers=workers
    )
    make.check_unreadable(outcome, len(names), out, "unreadable.txt", allow=False)
    return pairs_of(images, out, [name for name in names if name.as_posix() in outcome.rows])


def pseudo_work(
    images: Path, out: Path, names: Sequence[Path], method: str
) -> tuple[work.Job, dict[str, manifests.Row]]:
    """Return the job of making pseudo-masks and what is done of it.

    Raises:
        UsageError: the maker needs more than images, or the folder holds other masks.
    """
    if method not in makers.LABEL_FREE:
        raise UsageError(
            "pseudo-masks come from a maker that needs only images",
            where="--pseudo",
            seen=method,
            next=f"one of: {', '.join(makers.LABEL_FREE)}; or make masks first and give --masks",
        )
    job = work.Job(images, out, method, makers.method_of(method), makers.threshold_of(method))
    return job, work.finished(job, list(names), tar=0)


def mapped(function: Callable[[A], B], items: Sequence[A], what: str, workers: int) -> Iterator[B]:
    """Yield `function` of each item in order, over processes (0: in this one), with progress."""
    if workers == 0 or len(items) < 8:
        yield from (function(item) for item in track(items, what))
        return
    with (
        stoppable() as stop,
        pool(workers, ["harl_bench.masks.drfi", "cv2"], _one_thread) as processes,
    ):
        for result in track(processes.map(function, items, chunksize=2), what, len(items)):
            yield result
            stop.raise_if_asked("what was finished is kept")


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
