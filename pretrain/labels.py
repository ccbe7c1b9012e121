"""Classes of images: the sub-folders of the first level, as ImageNet has them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from harl_bench.core.errors import DataError


class Labels:
    """The class of every image.

    Args:
        root: folder, for messages.
        paths: images, relative to it.
        names: the classes in order; None: those that are there, sorted.

    Raises:
        DataError: images beside the sub-folders, fewer than two classes, or a class that is not in
            `names`.
    """

    def __init__(
        self, root: Path, paths: Sequence[Path], names: Sequence[str] | None = None
    ) -> None:
        flat = next((path for path in paths if len(path.parts) < 2), None)
        if flat is not None:
            raise DataError("labels need one sub-folder for each class", where=root, seen=flat)
        there = sorted({path.parts[0] for path in paths})
        self.names = list(names) if names is not None else there
        if len(self.names) < 2:
            raise DataError(
                "labels need two classes or more", where=root, seen=f"{len(self.names)} sub-folder"
            )
        strange = sorted(set(there) - set(self.names))
        if strange:
            raise DataError(
                "a class that the training images do not have",
                where=root,
                seen=strange[0],
                next="give --val images in the same class folders as --data",
            )
        number = {name: i for i, name in enumerate(self.names)}
        self.paths = paths
        self.values = torch.tensor([number[path.parts[0]] for path in paths])

    def of(
        self, items: Sequence[tuple[int, int]], unreadable: Sequence[tuple[str, str]] = ()
    ) -> Tensor:
        """[B] labels of a batch's items; an unreadable image has the next readable one's."""
        bad = {name for name, _ in unreadable}
        chosen = []
        for _, index in items:
            while bad and str(self.paths[index]) in bad:
                index = (index + 1) % len(self.paths)
            chosen.append(index)
        return self.values[chosen]
