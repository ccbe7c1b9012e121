"""Masks of a whole image tree: parallel, resumable by repeating, each file written atomically."""

import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.files import write_bytes
from harl_bench.core.images import read_rgb
from harl_bench.core.masks import mask_path
from harl_bench.core.progress import Tracker
from harl_bench.core.stopping import stoppable
from harl_bench.core.unreadable import MAX_UNREADABLE, too_many
from harl_bench.masks import manifests, tars
from harl_bench.masks.finish import Map
from harl_bench.masks.makers import Maker
from harl_bench.masks.manifests import Row
from harl_bench.masks.pool import pool
from harl_bench.masks.work import Job

AHEAD = 4  # images in flight per process: enough to keep it busy, few enough for a million images
PRELOAD = ("harl_bench.masks.drfi_lite", "cv2", "skimage.filters", "scipy.sparse.csgraph")


@dataclass
class Outcome:
    """All rows, old and new, how many were made now, and why others could not be read."""

    rows: dict[str, Row]
    made: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def make_masks(
    job: Job,
    images: list[Path],
    done: dict[str, Row],
    *,
    manifest: Path,
    workers: int,
    tar: int = 0,
) -> Outcome:
    """Make the masks that are missing.

    Unreadable images are left out, with their cause in the outcome.
    """
    outcome = Outcome(dict(done))
    remaining = [p for p in images if p.as_posix() not in done]
    job.out.mkdir(parents=True, exist_ok=True)
    manifests.append(manifest, [])
    shards = tars.Tars(job.out, images, tar) if tar else None
    rejected = 0
    with (
        Tracker("masks", len(images), start=len(done), unit="images") as tracker,
        stoppable() as stop,
        # ends its pool, however the loop ends
        contextlib.closing(_results(job, remaining, workers)) as results,
    ):
        for relative, result in results:
            if isinstance(result, str):
                outcome.unreadable[relative.as_posix()] = result
            else:
                row = result[0]
                outcome.rows[row.path], outcome.made = row, outcome.made + 1
                rejected += not row.valid
                if shards is None:
                    manifests.append(manifest, [row])
            if shards is not None:
                ready = shards.add(relative, None if isinstance(result, str) else result)
                manifests.append(manifest, ready)
            tracker.advance(1, rejected=str(rejected), unreadable=str(len(outcome.unreadable)))
            stop.raise_if_asked("the masks made so far are kept")
    return outcome


def check_unreadable(outcome: Outcome, total: int, out: Path, listing: str, allow: bool) -> None:
    """Write the list of skipped images; too many end the command, with all other masks kept.

    Raises:
        DataError: more than MAX_UNREADABLE of `total`, unless allowed.
    """
    path = out / listing
    if not outcome.unreadable:
        path.unlink(missing_ok=True)
        return
    lines = [f"{name}\t{cause}\n" for name, cause in sorted(outcome.unreadable.items())]
    write_bytes(path, "".join(lines).encode("utf-8", "surrogateescape"))
    if too_many(len(outcome.unreadable), total, allowed=allow):
        raise DataError(
            f"{len(outcome.unreadable)} of {total} images gave no mask (more than "
            f"{MAX_UNREADABLE:.0%})",
            where=path,
            seen=lines[0].strip().replace("\t", ": "),
            next="fix or remove them and repeat the command, or add --allow-unreadable",
        )


def mask_one(job: Job, maker: Maker, relative: Path) -> tuple[Row, bytes]:
    """Write the mask of one image to its file, unless packed; return its row and its PNG bytes.

    Raises:
        DataError: the image (or what the maker needs for it) is missing or unreadable.
    """
    import numpy as np

    rgb = np.asarray(read_rgb(job.root / relative))
    return write_mask(job, relative, rgb.shape[:2], maker(rgb, relative))


def write_mask(job: Job, relative: Path, size: tuple[int, int], saliency: Map) -> tuple[Row, bytes]:
    """Do as `mask_one`, from an image's size (height, width) and its saliency map."""
    import cv2

    from harl_bench.masks.finish import finish

    height, width = size
    mask, valid = finish(saliency, size, job.threshold)
    png: bytes = cv2.imencode(".png", mask)[1].tobytes()
    if job.maps is not None:
        graded = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
        graded_png = cv2.imencode(".png", (graded * 255).round().astype("uint8"))[1].tobytes()
        write_bytes(job.maps / mask_path(relative), graded_png)
    if not job.packed:
        write_bytes(job.out / mask_path(relative), png)
    share = round(float((mask > 0).mean()), 6)
    digest = hashlib.sha256(png).hexdigest()
    picture_bytes = (job.root / relative).stat().st_size
    about = (digest, job.name, job.parameters, job.engine)
    return Row(relative.as_posix(), height, width, picture_bytes, share, int(valid), *about), png


Result = tuple[Row, bytes] | str
_maker: Maker | None = None  # of this process


def _start(job: Job) -> None:
    import cv2

    global _maker
    cv2.setNumThreads(1)  # one process per core is faster than threads inside one image
    _maker = job.method.maker()


def _work(job: Job, relative: Path) -> tuple[Path, Result]:
    assert _maker is not None, "_start runs before _work"
    try:
        row, png = mask_one(job, _maker, relative)
    except DataError as error:
        return relative, str(error)
    return relative, (row, png if job.packed else b"")


def _results(
    job: Job, remaining: list[Path], workers: int
) -> Generator[tuple[Path, Result], None, None]:
    """Yield results as they come, from this process (workers 0 or little to do) or from several."""
    if hasattr(job.method, "batch"):
        from harl_bench.masks import batches

        yield from batches.results(
            job.method, job.root, remaining, workers, functools.partial(write_mask, job)
        )
        return
    if workers == 0 or len(remaining) < 8:
        _start(job)
        yield from (_work(job, relative) for relative in remaining)
        return
    workers, rest = min(workers, len(remaining) // 4), iter(remaining)
    with pool(workers, PRELOAD, _start, job) as processes:

        def submitted(count: int) -> set[concurrent.futures.Future[tuple[Path, Result]]]:
            names = itertools.islice(rest, count)
            return {processes.submit(_work, job, relative) for relative in names}

        running = submitted(AHEAD * workers)
        while running:
            first = concurrent.futures.FIRST_COMPLETED
            ready, running = concurrent.futures.wait(running, return_when=first)
            running |= submitted(len(ready))
            yield from (future.result() for future in ready)
