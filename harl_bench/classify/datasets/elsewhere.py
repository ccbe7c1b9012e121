"""Where a missing file of a data set lies instead: one folder deeper, beside, under another
spelling, or packed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from harl_bench.classify.datasets.published import published
from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES

DEPTH, MOST = 3, 3000  # folders below the first, and folders in all, that are looked into
ABOVE = 3  # parents that --data may have meant
INTO = {"dtd": "dtd", "cars": "stanford_cars"}  # folders that an archive does not bring itself


def missing(
    what: str, base: Path, path: str, *, next: str, name: str = "", least: int = 1
) -> DataError:
    """Return the error of a file that is not at base/path, with where it lies and what to do, else
    with `next`.

    Args:
        name: the data set whose archives may lie packed instead.
        least: trailing parts of the path that must agree, 2 where the name alone says little
            (00001.jpg).
    """
    parts = path.split("/")
    respelled = _respelled(base, parts)
    if respelled:
        actual, expected = respelled
        others = ", and the others like it" if actual.is_file() and least > 1 else ""
        seen = f"first {path}; {actual.name} is there"
        return DataError(
            what, where=base, seen=seen, next=f"rename {actual} to {expected.name}{others}"
        )
    for folder in _folders([base, base.parent]):
        for first in range(len(parts) - min(least, len(parts)) + 1):
            at = folder.joinpath(*parts[first:])
            if at.exists() and at != base / path:
                return _moved(what, base, path, at)
    if name and (packed := unpacking(name, (base, base.parent))):
        return DataError(
            what, where=base, seen=f"first {path}; {packed[0]} is packed", next=packed[1]
        )
    return DataError(what, where=base, seen=f"first {path}", next=next)


def data_folder(root: Path, layouts: Iterable[str]) -> Path | None:
    """Return the folder near root below which one of the layouts (paths) exists: what --data should
    name.
    """
    layouts = list(layouts)
    for folder in (*list(root.resolve().parents)[:ABOVE], *_folders([root])):
        if folder != root and any((folder / layout).exists() for layout in layouts):
            return folder
    return None


def unpacking(name: str, folders: Iterable[Path]) -> tuple[str, str] | None:
    """Return the published archive of a set that lies packed in one of the folders, and the command
    that unpacks it.
    """
    for folder in folders:
        for archive in published(name).archives:
            if archive.endswith(("gz", "tgz")) and (folder / archive).is_file():
                into = folder if folder.name in INTO.values() else folder / INTO.get(name, "")
                where = quote(str(into))
                return (
                    archive,
                    f"mkdir -p {where} && tar -xf {quote(str(folder / archive))} -C {where}",
                )
    return None


def _moved(what: str, base: Path, path: str, at: Path) -> DataError:
    """Name the file, or the folder whose contents, that moved put it into its place."""
    wanted, common = base / path, 0
    while common < len(Path(path).parts) and at.parts[-1 - common] == wanted.parts[-1 - common]:
        common += 1
    one = common == 1  # of a whole folder more than the file's own name agrees
    hint = (
        f"move {at} to {wanted}"
        if one
        else f"move what {_up(at, common - 1)} holds to {_up(wanted, common - 1)}"
    )
    return DataError(what, where=base, seen=f"first {path}, which lies in {at.parent}", next=hint)


def _up(path: Path, levels: int) -> Path:
    return path.parents[levels - 1]


def _respelled(base: Path, parts: list[str]) -> tuple[Path, Path] | None:
    """The first part of a path that is there in other letter case, or, of an image, with another
    suffix.
    """
    at = base
    for number, part in enumerate(parts):
        if not at.is_dir():
            return None
        if not (at / part).exists():
            last = number == len(parts) - 1
            for name in os.listdir(at):
                stem, suffix = os.path.splitext(name)
                same = last and suffix.lower() in SUFFIXES and stem == os.path.splitext(part)[0]
                if name.casefold() == part.casefold() or same:
                    return at / name, at / part
            return None
        at /= part
    return None


def _folders(roots: list[Path]) -> Iterator[Path]:
    """Folders below the roots, near ones first, each once."""
    queue = deque((root, 0) for root in roots)
    known: set[Path] = set()
    while queue and len(known) < MOST:
        folder, depth = queue.popleft()
        if folder in known:
            continue
        known.add(folder)
        yield folder
        if depth < DEPTH:
            try:
                with os.scandir(folder) as entries:
                    names = sorted(
                        e.name for e in entries if e.is_dir() and not e.name.startswith(".")
                    )
            except OSError:
                continue
            queue.extend((folder / name, depth + 1) for name in names)
