"""The unlabelled images of a run, and the mask of each."""

import contextlib
import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harl_bench.core.contents import head, of_sample
from harl_bench.core.errors import DataError, UnreadableError, UsageError
from harl_bench.core.images import no_images, read_mask, read_rgb
from harl_bench.core.masks import (
    black_and_white,
    manifests_in,
    mask_name,
    masks_beside,
    pair_masks,
    refuse_shared,
    refuse_swapped,
)
from pretrain.index import Index, index
from pretrain.names import Names

IN_SHARD = ".mask.png"  # a mask beside its image in one webdataset sample: key.jpg, key.mask.png
NO_MASK = -1


@dataclass(frozen=True)
class Images:
    """Images with the masks that belong to them.

    Args:
        index: the images.
        chosen: [N] which of the index's they are.
        masks: the masks; None for methods without them.
        mask_of: [N] each image's mask, or NO_MASK.
        rejected: how many masks their maker rejected.
    """

    index: Index
    chosen: NDArray[np.int64]
    paths: Names
    masks: Index | None
    mask_of: NDArray[np.int64]
    rejected: int = 0

    @property
    def root(self) -> Path:
        """Folder of the images."""
        return self.index.root

    @property
    def masked(self) -> NDArray[np.bool_]:
        """[N] whether there is a mask that was not rejected."""
        return np.not_equal(self.mask_of, NO_MASK)

    def image(self, i: int) -> Image.Image:
        """RGB.

        Raises:
            UnreadableError: it cannot be decoded.
        """
        k = int(self.chosen[i])
        return read_rgb(self.index.where(k), content=self.index.content(k))

    def mask(self, i: int, size: tuple[int, int]) -> Image.Image | None:
        """ "L" with 0 and 255, of the image's (width, height); None where there is none.

        Raises:
            UnreadableError: it cannot be decoded.
            DataError: of another size.
        """
        if self.masks is None or self.mask_of[i] == NO_MASK:
            return None
        k = int(self.mask_of[i])
        return read_mask(self.masks.where(k), size, content=self.masks.content(k))

    def fingerprint(self) -> str:
        """Changes when an image or mask is added, removed or resized."""
        parts = [self.index.fingerprint(self.chosen)]
        if self.masks is not None:
            parts.append(self.masks.fingerprint(self.mask_of[self.masked]))
        return "-".join(parts)

    def contents(self) -> dict[str, str]:
        """Digests of what the fingerprint does not cover (core/contents.py): of a hundred images
        and a hundred masks, since a maker changes them all.
        """
        digests = {"images": _sample(self.index, self.chosen)}
        if self.masks is not None:
            digests["masks"] = _sample(self.masks, self.mask_of[self.masked])
        return digests


def find(root: Path, masks: Path | None) -> Images:
    """Look for images, and for masks at the same path relative to the root, as
    `core.images.mask_of` has it.

    Both may be folders of files or of .tar shards, also those of `masks make --tar`; a shard of
    images may hold masks as key.mask.png.

    Raises:
        DataError: a folder is missing or empty, no image has a mask, or two images would share one.
        UsageError: images and masks are swapped, or the masks lie among the images.
    """
    images = index(root)
    every = images.names.strings()
    own = masks is not None and masks.resolve() == root.resolve()
    suffixed = masks_beside(every)
    if not own:
        refuse_beside(images, [i for i, name in enumerate(every) if name in suffixed])
    left_out = suffixed if own else set[str]()
    chosen = np.array(
        [i for i, name in enumerate(every) if not name.endswith(IN_SHARD) and name not in left_out],
        np.int64,
    )
    names = [every[i] for i in chosen.tolist()]
    if not names:
        raise no_images(root, len(every))
    paths = images.names if len(names) == len(every) else Names.of(names)
    if masks is None:
        folder = root / "masks"
        if manifests_in(folder) or ((root / "images").is_dir() and folder.is_dir()):
            refuse_among(images, folder, "masks")
        return Images(images, chosen, paths, None, np.full(len(names), NO_MASK))
    if not own:
        refuse_among(images, masks, "masks")
    found = images if own else index(masks)
    place = {name: k for k, name in enumerate(found.names.strings())}
    wanted = [mask_name(name) for name in names]
    refuse_shared(zip(names, wanted, strict=True), root)
    beside = [mask[: -len(".png")] + IN_SHARD for mask in wanted]
    # In a folder of both, a.png beside a.jpg is an image: only a_mask.png is a mask.
    pairs = pair_masks(wanted, (name for name in place if not own or name in suffixed), masks)
    mask_at = np.array(
        [
            place.get(other, place.get(pairs.get(mask, ""), NO_MASK))
            for mask, other in zip(wanted, beside, strict=True)
        ],
        np.int64,
    )
    if (mask_at == NO_MASK).all():
        raise DataError(
            "no image has a mask",
            where=masks,
            seen=(
                f"{len(place)} files, first {min(place)}; none is {wanted[0]} (or .jpg, "
                "_mask.png, ...)"
            ),
            next=(
                f"name them like that, or: harl-bench masks make {root} --out ANOTHER-FOLDER "
                "--method drfi-lite"
            ),
        )
    pairs_at = [
        i for i in np.linspace(0, len(names) - 1, 8).astype(int).tolist() if mask_at[i] != NO_MASK
    ]
    with contextlib.suppress(UnreadableError):  # counted when it is trained on
        some, theirs = (
            [read_rgb(files.where(k), content=files.content(k)) for k in numbers[pairs_at].tolist()]
            for files, numbers in ((images, chosen), (found, mask_at))
        )
        refuse_swapped(some, theirs, where=f"--data {root} and --masks {masks}")
    refused = _rejected(masks if masks.is_dir() else masks.parent)
    bad = np.array([mask in refused for mask in wanted]) & (mask_at != NO_MASK)
    return Images(
        images, chosen, paths, found, np.where(bad, NO_MASK, mask_at), rejected=int(bad.sum())
    )


def refuse_among(images: Index, folder: Path, what: str) -> None:
    """Look for a folder, or a .tar file, whose files the index would take for images of its own.

    Raises:
        UsageError: there are some.
    """
    inside = {
        os.path.relpath(path(folder), path(images.root))
        for path in (os.path.abspath, os.path.realpath)
    }
    if all(name.startswith("..") for name in inside):
        return
    below = tuple(f"{name}/" for name in inside)
    if any(f"{name}/".startswith(below) for name in (*images.shards, *images.names.strings())):
        raise UsageError(
            f"{what} among the images would be trained on, too",
            where=folder,
            next="give --data the folder of the images alone, or move the others out of it",
        )


def refuse_beside(images: Index, suffixed: list[int]) -> None:
    """Look whether the files x_mask.png beside an x.jpg, of these numbers, are masks.

    Raises:
        UsageError: some of them are, in black and white.
    """
    for i in suffixed[:: max(1, len(suffixed) // 8)]:
        with contextlib.suppress(UnreadableError):  # counted when it is trained on
            if black_and_white(read_rgb(images.where(i), content=images.content(i))):
                raise UsageError(
                    "masks beside the images would be trained on, too",
                    where=images.where(i),
                    next="move them to a folder of their own",
                )


def _sample(files: Index, rows: NDArray[np.int64]) -> str:
    def content(i: int) -> bytes:
        k = int(rows[i])
        inside = files.content(k)
        return head(files.where(k)) if inside is None else inside

    return of_sample(len(rows), content)


def _rejected(masks: Path) -> set[str]:
    """Masks that their maker flagged invalid in a manifest (all-zero files; docs/fidelity.md 2)."""
    rejected: set[str] = set()
    for path in manifests_in(masks):
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows: Any = csv.reader(file)
            header: list[str] = next(rows, [])
            if not {"path", "valid"} <= set(header):
                raise DataError(
                    "manifest lacks its columns path and valid", where=path, seen=header
                )
            p, v = header.index("path"), header.index("valid")
            for row in rows:
                if len(row) > max(p, v):  # a last line cut short by a kill is left out
                    invalid = row[v].lower() in ("0", "false", "no")
                    (rejected.add if invalid else rejected.discard)(mask_name(row[p]))
    return rejected
