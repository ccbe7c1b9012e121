"""Digests of what no run id covers: the labels of a data set, and what its image files hold.

A run id has the names and sizes of files, so that it costs no reading. A corrected list of labels
keeps both. A run therefore notes these digests beside its id, and refuses to count for others.
Where a reader comes to read more, its digest needs another name: names that a run did not note are
not compared.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.plain import open_plain

SAMPLED, HEAD_BYTES = 100, 65_536
# Faults that pass. A digest without the file would refuse the run when they have passed.
PASSING = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}


def of_files(paths: Sequence[str | Path]) -> str:
    """Return a digest of all bytes of files, in their order; threads read them.

    Raises:
        DataError: one cannot be read now.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _joined(pool.map(_content, paths))


def of_sample(n: int, content: Callable[[int], bytes]) -> str:
    """Return a digest of the first 64 KiB of a hundred of `n` files, evenly spaced.

    Args:
        content: reads one, such as `lambda i: head(paths[i])`.
    """
    count = min(n, SAMPLED)
    return _joined(content(i * n // count)[:HEAD_BYTES] for i in range(count))


def head(path: str | Path) -> bytes:
    """Return the first 64 KiB of a file, none where it is missing: its reader will say so.

    Raises:
        DataError: it cannot be read now.
    """
    return _content(path, HEAD_BYTES)


def joined(digests: Iterable[str]) -> str:
    """Return one digest of several."""
    return _joined(digest.encode() for digest in digests)


def require_same(folder: Path, noted: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Compare the digests that a run noted with those of the data that are given now.

    A run of an earlier version noted none and is taken as it is.

    Raises:
        DataError: they differ.
    """
    differing = [name for name, digest in present.items() if noted.get(name, digest) != digest]
    if differing:
        name = differing[0]  # other lists of a split are other samples of images, too
        raise DataError(
            f"the {name} have changed since this run was made",
            where=folder,
            seen=f"{name} {noted[name][:8]} then, {present[name][:8]} now",
            next="choose another --out, or --fresh to throw that run away",
        )


def _joined(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _content(path: str | Path, size: int = -1) -> bytes:
    try:
        with open_plain(path) as file:
            return file.read(size)
    except OSError as error:
        if error.errno in PASSING:
            what, hint = f"cannot be read now: {error.strerror}", "the same command again"
            raise DataError(what, where=path, next=hint) from None
        return b""
