"""Masks packed into .tar files, one for each group of neighbouring images, written atomically."""

import hashlib
import io
import re
import tarfile
from pathlib import Path

from harl_bench.core.errors import UsageError
from harl_bench.core.files import replacing
from harl_bench.core.masks import mask_path
from harl_bench.masks.manifests import Row

NAME = re.compile(r"masks-(\d+)-[0-9a-f]{12}\.tar")


def name_of(first: Path, size: int) -> str:
    """Return a .tar's name, unique to its first image: shards differ, a repeated command agrees."""
    digest = hashlib.sha256(first.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"masks-{size}-{digest}.tar"


def check_size(out: Path, size: int) -> None:
    """Refuse to pack the same masks a second time in groups of another size.

    Raises:
        UsageError: the folder holds .tar files of another `size` (0: no packing).
    """
    for path in out.glob("masks-*.tar"):
        match = NAME.fullmatch(path.name)
        if match and int(match[1]) != size:
            raise UsageError(
                "the folder holds masks packed otherwise",
                where=path,
                seen=f"now {f'--tar {size}' if size else 'no --tar'}",
                next=f"add --tar {match[1]}, choose another --out, or --fresh to make them again",
            )


class Tars:
    """Collects masks and writes each group of `size` neighbours as one .tar once it is complete."""

    def __init__(self, out: Path, images: list[Path], size: int) -> None:
        self._out, self._size = out, size
        self._group = {p: i // size for i, p in enumerate(images)}
        self._members = [images[i : i + size] for i in range(0, len(images), size)]
        self._waiting: dict[int, dict[Path, tuple[Row, bytes] | None]] = {}

    def add(self, relative: Path, result: tuple[Row, bytes] | None) -> list[Row]:
        """Return the rows of the group that this image completed and wrote to disk, or none."""
        number = self._group[relative]
        collected = self._waiting.setdefault(number, {})
        collected[relative] = result
        members = self._members[number]
        if len(collected) < len(members):
            return []
        del self._waiting[number]
        masks = [(p, *mask) for p in members if (mask := collected[p]) is not None]
        with (
            replacing(self._out / name_of(members[0], self._size)) as temporary,
            tarfile.open(temporary, "w") as tar,
        ):
            for p, _, png in masks:
                member = tarfile.TarInfo(mask_path(p).as_posix())
                member.size = len(png)
                tar.addfile(member, io.BytesIO(png))
        return [row for _, row, _ in masks]
