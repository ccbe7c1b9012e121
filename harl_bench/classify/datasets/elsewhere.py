"""Find a missing file of a data set: one folder deeper, beside, under another name, or packed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from harl_bench.classify.datasets.published import published
from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES

DEPTH, MOST = 3, 3000  # levels below the first folder, and folders in all, that are searched
ABOVE = 3  # parents that --data may have meant
# Folders that an archive does not bring itself.
INTO = {
    "dtd": "dtd",
    "cars": "stanford_cars",
    "pets": "oxford-iiit-pet",
    "flowers": "flowers-102",
    "inaturalist2018": "inaturalist2018",
}


def missing(
    what: str, base: Path, path: str, *, next: str, name: str = "", least: int = 1
) -> DataError:
    """Return the error of a file that is not at base/path, with advice if it is found elsewhere.

    Args:
        next: the advice otherwise.
        name: the data set whose archives may lie packed instead.
        least: trailing parts of the path that must agree; 2 where the name says little (00001.jpg).
    """
    parts = path.split("/")
    respelled = _respelled(base, parts)
    if respelled:
        actual, expected = respelled
        others = ", and the others like it" if actual.is_file() and least > 1 else ""
        seen, hint = f"first {path}; {actual.name} is there", f"rename {actual} to {expected.name}"
        return DataError(what, where=base, seen=seen, next=f"{hint}{others}")
    for folder in _folders([base, base.parent]):
        for first in range(len(parts) - min(least, len(parts)) + 1):
            at = folder.joinpath(*parts[first:])
            if at.exists() and at != base / path:
                return _moved(what, base, path, at)
    if name and (packed := unpacking(name, (base, base.parent))):
        archive, command = packed
        seen = f"first {path}; {archive} is packed"
        return DataError(what, where=base, seen=seen, next=command)
    return DataError(what, where=base, seen=f"first {path}", next=next)


def data_folder(root: Path, layouts: Iterable[str]) -> Path | None:
    """Return the folder that --data should name: near root, with one of the layouts (paths)."""
    layouts = list(layouts)
    for folder in (*list(root.resolve().parents)[:ABOVE], *_folders([root])):
        if folder != root and any((folder / layout).exists() for layout in layouts):
            return folder
    return None


def unpacking(name: str, folders: Iterable[Path]) -> tuple[str, str] | None:
    """Return an archive of a set in one of the folders, and the command that unpacks it."""
    for folder in folders:
        for archive in published(name).archives:
            if archive.endswith(("gz", "tgz")) and (folder / archive).is_file():
                into = folder if folder.name in INTO.values() else folder / INTO.get(name, "")
                target, source = quote(str(into)), quote(str(folder / archive))
                return archive, f"mkdir -p {target} && tar -xf {source} -C {target}"
    return None


def _moved(what: str, base: Path, path: str, at: Path) -> DataError:
    """Return the error that advises to move the file, or the contents of its folder."""
    expected, common = base / path, 0
    while common < len(Path(path).parts) and at.parts[-1 - common] == expected.parts[-1 - common]:
        common += 1
    hint = f"move {at} to {expected}"
    if common > 1:  # more than the file's name agrees: its folder was moved
        hint = f"move what {at.parents[common - 2]} holds to {expected.parents[common - 2]}"
    return DataError(what, where=base, seen=f"first {path}, which lies in {at.parent}", next=hint)


def _respelled(base: Path, parts: list[str]) -> tuple[Path, Path] | None:
    """Return (actual, expected) of a path's first part in another case or with another suffix."""
    at = base
    for number, part in enumerate(parts):
        if not at.is_dir():
            return None
        if not (at / part).exists():
            last = number == len(parts) - 1
            for name in os.listdir(at):
                (stem, suffix), (expected, ending) = map(os.path.splitext, (name, part))
                images = {suffix.lower(), ending.lower()} <= SUFFIXES
                same = last and images and stem == expected
                if name.casefold() == part.casefold() or same:
                    return at / name, at / part
            return None
        at /= part
    return None


def _folders(roots: list[Path]) -> Iterator[Path]:
    """Yield the folders below the roots, near ones first, each once."""
    queue = deque((root, 0) for root in roots)
    visited: set[Path] = set()
    while queue and len(visited) < MOST:
        folder, depth = queue.popleft()
        if folder in visited:
            continue
        visited.add(folder)
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
