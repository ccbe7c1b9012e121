"""Which images a folder holds: loose files and members of .tar shards, listed once and remembered.

Listing a million files takes minutes on a cluster's file system, reading the remembered list less
than a second. It is used again only while every folder's and every shard's time stamp is as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tarfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.errors import DataError
from harl_bench.core.files import replacing
from harl_bench.core.images import SUFFIXES, existing_folder, loops, no_images
from pretrain.names import ENCODING, Names

VERSION = 1
REMEMBER_FROM = 5_000  # fewer names are listed faster than anyone notices
RACY_S = 2.0  # a folder changed so shortly before listing may change again without a new time stamp
SPOT_CHECKS = 500  # files whose size is compared with the remembered one
OPEN_SHARDS = 64  # file handles kept by each process
LOOSE = -1  # "shard" of a file of its own


@dataclass
class Index:
    """The images below a folder, sorted by path.

    Args:
        root: the folder.
        names: relative paths; of a shard's members, their names in it.
        sizes: [N] bytes.
        shards: the .tar files, relative to the root.
        shard: [N] number of the shard, or LOOSE.
        offsets: [N] where the bytes begin in the shard.
    """

    root: Path
    names: Names
    sizes: NDArray[np.int64]
    shards: list[str]
    shard: NDArray[np.int32]
    offsets: NDArray[np.int64]
    _open: OrderedDict[int, int] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # file handles do not travel

    def where(self, i: int) -> Path:
        """The file, or shard and member, for opening and for messages."""
        inside = self.root / self.shards[self.shard[i]] if self.shard[i] != LOOSE else self.root
        return inside / self.names.name(i)

    def content(self, i: int) -> bytes | None:
        """The bytes of a shard's member; None for a file of its own.

        Raises:
            DataError: the shard is shorter than it was, or cannot be read now.
        """
        number = int(self.shard[i])
        if number == LOOSE:
            return None
        try:
            content = os.pread(self._handle(number), int(self.sizes[i]), int(self.offsets[i]))
        except OSError as error:
            raise DataError(
                "cannot read shard",
                where=self.root / self.shards[number],
                seen=error.strerror,
                next="the same command again, once it can be read",
            ) from None
        if len(content) < self.sizes[i]:
            where = self.root / self.shards[number]
            raise DataError("shard was cut short since it was listed", where=where)
        return content

    def _handle(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1])
        self._open[number] = os.open(self.root / self.shards[number], os.O_RDONLY)
        return self._open[number]

    def fingerprint(self, chosen: Sequence[int] | NDArray[Any] | None = None) -> str:
        """Hex digest over sorted (name, size), as core/manifest.py's; of the chosen or all."""
        names, sizes = self.names.strings(), self.sizes.tolist()
        rows = range(len(names)) if chosen is None else chosen
        text = "".join(
            f"{name}\0{size}\n" for name, size in sorted((names[i], sizes[i]) for i in rows)
        )
        return hashlib.sha256(text.encode(*ENCODING)).hexdigest()


def index(folder: Path) -> Index:
    """The images below a folder (or in one .tar file), from memory when nothing changed.

    Raises:
        DataError: missing, empty, a damaged or compressed shard, or one name twice.
    """
    if folder.is_file() and folder.suffix == ".tar":
        return _listed(folder.parent, [(folder.name, folder.stat().st_size)])
    root = existing_folder(folder)
    memory = _memory(root)
    known = _remembered(root, memory)
    if known is not None:
        return known
    began = time.time()
    stamps: dict[str, int] = {}
    made = _listed(root, list(_walk(root, stamps)))
    stamps |= {shard: (root / shard).stat().st_mtime_ns for shard in made.shards}
    if len(made.names) >= REMEMBER_FROM and max(stamps.values()) < (began - RACY_S) * 1e9:
        _remember(made, stamps, memory)
    return made


def _walk(root: Path, stamps: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(relative path, size) of every file, without hidden ones and links to a folder that holds
    them; fills the folders' time stamps.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        stamps[folder] = os.stat(root / folder).st_mtime_ns
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    if not loops(root / folder, entry.name):
                        waiting.append(name)
                else:
                    size = 0
                    with contextlib.suppress(FileNotFoundError):  # a link to nowhere
                        size = entry.stat().st_size
                    yield name, size  # reading such a link says so


def _listed(root: Path, files: list[tuple[str, int]]) -> Index:
    found: list[tuple[str, int, int, int]] = []  # name, size, shard, offset
    shards = sorted(name for name, _ in files if name.endswith(".tar"))
    for number, shard in enumerate(shards):
        found += [(name, size, number, offset) for name, size, offset in _members(root / shard)]
    found += [(name, size, LOOSE, 0) for name, size in files if _is_image(name)]
    if not found:
        raise no_images(root, len(files))
    found.sort(key=lambda row: row[0].split("/"))
    for (name, _, a, _), (other, _, b, _) in itertools.pairwise(found):
        if name == other:
            places = " and ".join("a file" if k == LOOSE else shards[k] for k in (a, b))
            raise DataError(
                "two images of one name", where=root, seen=f"{name} in {places}", next="rename one"
            )
    names, sizes, numbers, offsets = zip(*found, strict=True)
    return Index(
        root,
        Names.of(names),
        np.array(sizes),
        shards,
        np.array(numbers, np.int32),
        np.array(offsets),
    )


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, size, offset of its bytes) of the images in a .tar; a hard link has its file's bytes.

    Raises:
        DataError: not a plain .tar, cut short, or an image is a link to what cannot be looked up.
    """
    size = path.stat().st_size
    files: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                hidden = any(part.startswith(".") for part in name.split("/"))
                if member.isreg():
                    files[member.name] = member.size, member.offset_data
                elif not (member.islnk() or member.issym()):
                    continue
                if hidden or not _is_image(name):
                    continue
                source = member.name if member.isreg() else member.linkname
                if member.issym() or source not in files:
                    raise DataError(
                        "an image in a shard is a link",
                        where=path / name,
                        seen=f"to {source}",
                        next="pack the files that links lead to: tar --dereference",
                    )
                length, offset = files[source]
                if offset + length > size:
                    raise tarfile.ReadError("its last member is cut short")
                yield name, length, offset
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            "cannot read shard",
            where=path,
            seen=f"{size:,} bytes, {error}",
            next=(
                "copy it again; a compressed one must be unpacked first (gunzip), its images "
                "cannot be looked up"
            ),
        ) from None


def _memory(root: Path) -> Path:
    """Where a folder's list is remembered: the user's cache, since the data may be read-only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(root.resolve()).encode(*ENCODING)).hexdigest()[:20]
    return cache / "harl-bench" / "index" / f"{digest}-{VERSION}.npz"


def _remember(made: Index, stamps: dict[str, int], path: Path) -> None:
    folders, shards = Names.of(stamps), Names.of(made.shards)
    with contextlib.suppress(OSError):  # no place to remember: list again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                text=made.names.text,
                ends=made.names.ends,
                sizes=made.sizes,
                shard=made.shard,
                offsets=made.offsets,
                shards=shards.text,
                shard_ends=shards.ends,
                folders=folders.text,
                folder_ends=folders.ends,
                stamps=np.array(list(stamps.values()), np.int64),
            )


def _remembered(root: Path, path: Path) -> Index | None:
    """The remembered list, if it is still true."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            a = dict(kept)
        stamped = zip(
            Names(a["folders"], a["folder_ends"]).strings(), a["stamps"].tolist(), strict=True
        )
        if any(os.stat(root / folder).st_mtime_ns != stamp for folder, stamp in stamped):
            return None
        shards = Names(a["shards"], a["shard_ends"]).strings()
        made = Index(
            root, Names(a["text"], a["ends"]), a["sizes"], shards, a["shard"], a["offsets"]
        )
        loose = np.flatnonzero(made.shard == LOOSE)
        some = np.random.default_rng(0).choice(loose, min(SPOT_CHECKS, len(loose)), replace=False)
        same = all(os.stat(made.where(i)).st_size == made.sizes[i] for i in some.tolist())
        return made if same else None
    # Absent, damaged, or its files are gone.
    except (OSError, ValueError, KeyError, EOFError, ImportError, zipfile.BadZipFile):
        return None
