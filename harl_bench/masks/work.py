"""What is to be done in a folder of masks: the job, its images, and those that are finished."""

import functools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.core import manifest as provenance
from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.images import find_images
from harl_bench.core.masks import (
    manifests_in,
    mask_name,
    mask_of,
    mask_path,
    masks_by_stem,
    refuse_shared,
)
from harl_bench.masks import manifests, tars
from harl_bench.masks.finish import Rule
from harl_bench.masks.makers import Method
from harl_bench.masks.manifests import Row


@dataclass(frozen=True)
class Job:
    """What every process needs to know.

    `packed`: masks come back as bytes instead of going to files; `maps`: where saliency maps are
    kept, if they are.
    """

    root: Path
    out: Path
    name: str
    method: Method
    threshold: float | Rule
    packed: bool = False
    maps: Path | None = None

    @functools.cached_property
    def parameters(self) -> str:
        """All that decides a mask, as JSON, without excluded fields.

        Files and folders appear by name and digest, never by path.
        """
        fields = type(self.method).model_fields  # type: ignore[attr-defined]
        values = {
            key: _portable(getattr(self.method, key))
            for key, field in fields.items()
            if not field.exclude
        }
        return json.dumps(values | {"threshold": self.threshold}, default=list)

    @functools.cached_property
    def engine(self) -> str:
        """The program that does the work, with its version."""
        return self.method.describe_engine()


def find_work(root: Path, out: Path, shard: tuple[int, int] | None, group: int = 1) -> list[Path]:
    """Return this shard's images, relative to the root: every n-th group of `group` neighbours.

    Raises:
        DataError: no images, or two images that would share one mask (a.jpg and a.png).
        UsageError: the mask folder lies among the images.
    """
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            "masks among the images would be taken for images",
            where=out,
            next="choose another --out",
        )
    images = find_images(root)
    refuse_shared(((name, mask_name(name)) for name in map(Path.as_posix, images)), root)
    index, shards = shard or (0, 1)
    return [relative for i, relative in enumerate(images) if i // group % shards == index]


def finished(job: Job, images: list[Path], tar: int) -> dict[str, Row]:
    """Return the rows of the images that need no work.

    Raises:
        UsageError: the folder holds masks made otherwise: by another method, with other parameters,
            or by hand.
    """
    tars.check_size(job.out, tar)
    rows = manifests.read(job.out)
    refuse_strangers(job, images)
    for row in rows.values():
        if (row.maker, row.parameters) != (job.name, job.parameters):
            raise UsageError(
                "the folder holds masks made otherwise",
                where=job.out,
                seen=f"{row.maker} {row.parameters}, now {job.name} {job.parameters}",
                next="choose another --out, or --fresh to make them again",
            )
    done = {
        p.as_posix()
        for p in images
        if p.as_posix() in rows
        and rows[p.as_posix()].picture_bytes == (job.root / p).stat().st_size
        and (tar or (job.out / mask_path(p)).is_file())
        and (job.maps is None or (job.maps / mask_path(p)).is_file())
    }
    if tar:
        for start in range(0, len(images), tar):
            group = {p.as_posix() for p in images[start : start + tar]}
            if not (group <= done and (job.out / tars.name_of(images[start], tar)).is_file()):
                done -= group
    return {path: rows[path] for path in done}


def refuse_strangers(job: Job, images: list[Path]) -> None:
    """Refuse to begin masks, or maps, in a folder that holds images or masks of another origin.

    --fresh does not pass over them.

    Raises:
        UsageError: a file has the name of an image to be masked, whatever its suffix.
    """
    if manifests_in(job.out):
        return
    remedies = {
        job.out: "choose another --out, so that they are kept; IMAGES comes first, --out is for "
        "the masks",
        job.maps: "choose another --save-maps, so that they are kept",
    }
    for folder, remedy in remedies.items():
        if folder is None:
            continue
        try:
            files = masks_by_stem(path.as_posix() for path in find_images(folder))
        except DataError:  # no folder yet, or nothing in it
            continue
        matches = (mask_of(files, relative.as_posix()) for relative in images)
        stranger = next((match for match in matches if match is not None), None)
        if stranger is not None:
            raise UsageError(
                "the folder holds images or masks that this command did not make",
                where=folder / stranger,
                next=remedy,
            )


def clear(out: Path, names: Iterable[str]) -> None:
    """Remove the manifests and the masks they name (`--fresh`), and nothing else in the folder."""
    for name in names:
        (out / mask_path(Path(name))).unlink(missing_ok=True)
    for path in [*manifests_in(out), *out.glob("masks-*.tar")]:
        os.unlink(path)


def _portable(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    if not value.exists():
        return value.name
    folder = value.is_dir()
    digest = (
        provenance.fingerprint(value, find_images(value)) if folder else provenance.sha256(value)
    )
    return f"{value.name}#{digest[:16]}"
