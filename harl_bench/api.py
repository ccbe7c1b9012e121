"""The commands as functions of Python: `import harl_bench as hb` (docs/python.md).

A checkpoint is a file of any known format, "random", or a state dict. A state dict is written to a
temporary file and read like one, so that it passes the same checks. It holds tensors alone: input
convention, strides and padding are torchvision's, whatever file it came from.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from harl_bench.classify import arrays
from harl_bench.classify import features as frozen
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.estimators import LinearClassifier as LinearClassifier
from harl_bench.classify.estimators import fit_linear as fit_linear
from harl_bench.classify.estimators import knn as knn
from harl_bench.classify.network import network
from harl_bench.classify.pixels import Transform
from harl_bench.classify.splits import Rows
from harl_bench.convert.formats import Net
from harl_bench.convert.read import Backbone, read_backbone
from harl_bench.convert.run import convert
from harl_bench.core.errors import DataError, UnreadableError, UsageError
from harl_bench.core.images import find_images
from harl_bench.core.results import RESULT, Result, read_result
from harl_bench.detection.run import coco, voc
from harl_bench.nn import runtime
from harl_bench.nn.resnet import FEATURES
from harl_bench.report.read import read_results as read_results  # as it is
from harl_bench.report.run import report
from harl_bench.segmentation.run import segment

Checkpoint = str | Path | Mapping[str, Tensor]


def load_backbone(
    checkpoint: Checkpoint, *, net: Net | None = None, seed: int = 0, device: str = "cpu"
) -> torchvision.models.ResNet:
    """Return the frozen ResNet of a checkpoint, which turns images [B, 3, H, W] into [B, D].

    It is in evaluation mode, with every tensor of the checkpoint (265 of a ResNet-50). Images are
    normalized by the checkpoint's convention, ImageNet's mean and standard deviation for most.

    Args:
        net: which network of several ("online", "target"); by default the one that papers convert.
        seed: of "random" weights.
        device: "cpu", "cuda", or "auto".

    Raises:
        CheckpointError: not a ResNet-50 or -18, ambiguous, or tensors that are not finite.
    """
    return network(_backbone(checkpoint, net, seed), runtime.device(device))


def convert_checkpoint(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    to: Literal["detectron2", "torchvision"] = "detectron2",
    **options: Any,
) -> Path:
    """Write a checkpoint under other names, prove that nothing was lost, and return the file.

    Args:
        out: ends in .pkl for Detectron2 and in .pth for torchvision.
        options: of `harl-bench convert`: net, input, padding, prefix.

    Raises:
        CheckpointError: as `load_backbone`.
    """
    with _file(checkpoint) as path:
        convert(Path(path), out=Path(out), to=to, **options)
    return Path(out)


def extract_features(
    checkpoint: Checkpoint,
    images: str | Path | Sequence[str | Path],
    *,
    image_size: int = 224,
    short_side_px: int | None = None,
    net: Net | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
) -> NDArray[np.float32]:
    """Return pooled features [N, D] float32 of images, as `harl-bench classify` extracts them.

    D is 2,048 for a ResNet-50 and 512 for a ResNet-18. Float32 is exact: without TF32 on a GPU.

    Args:
        images: a folder, whose images are taken in sorted order, or a list of files.
        image_size: side of the central crop in pixels.
        short_side_px: the short side is resized to it first; by default to `image_size`.

    Raises:
        DataError: no images, or one that cannot be decoded.
        UsageError: the crop has no size, or is larger than the resized image.
    """
    arrays.require_positive("image_size", image_size)
    if short_side_px is not None and short_side_px < image_size:
        seen = f"short_side_px {short_side_px} and image_size {image_size}"
        raise UsageError(
            "the crop is larger than the image", seen=seen, next=f"short_side_px={image_size}"
        )
    root, names = _listed(images)
    backbone = _backbone(checkpoint, net, seed)
    convention = backbone.input
    transform = Transform(
        image_size,
        short_side_px or image_size,
        convention.input_format,
        convention.pixel_mean,
        convention.pixel_std,
    )
    rows = np.arange(len(names))
    data = DataSet("images", root, [], names, np.zeros_like(rows), {"test": rows}, "", _whole)
    with tempfile.TemporaryDirectory() as cache:
        folder = frozen.extract(
            data,
            backbone,
            Path(cache),
            transform=transform,
            device=runtime.device(device),
            workers=workers,
            allow_unreadable=True,  # the first one is named below
        )
        store = frozen.Features(folder, data, data.splits)
        if store.unreadable:
            where = root / store.unreadable[0]
            raise UnreadableError("an image cannot be decoded", where=where, next="leave it out")
        return store.read("test", torch.device("cpu"))[0][:].numpy()


def evaluate_voc(
    checkpoint: Checkpoint, data: str | Path, *overrides: str, **options: Any
) -> list[Result]:
    """Train and score a detector on PASCAL VOC, and return one result for each seed and rate.

    It is `harl-bench voc`: finished runs are read, unfinished ones go on.

    Args:
        data: the folder of the data sets.
        overrides: changes to the recipe, such as "SOLVER.MAX_ITER=40".
        options: of the command, in its words: recipe, seeds, out, net, max_iter, label and so on.

    Raises:
        BenchError: as the command's one line says.
    """
    return _evaluated(voc, checkpoint, data, overrides, options)


def evaluate_coco(
    checkpoint: Checkpoint, data: str | Path, *overrides: str, **options: Any
) -> list[Result]:
    """Train and score a detector on COCO: `harl-bench coco`, used like `evaluate_voc`."""
    return _evaluated(coco, checkpoint, data, overrides, options)


def evaluate_segmentation(
    checkpoint: Checkpoint, data: str | Path, *overrides: str, **options: Any
) -> list[Result]:
    """Train and score a segmenter: `harl-bench segment`, used like `evaluate_voc`."""
    return _evaluated(segment, checkpoint, data, overrides, options)


def write_report(runs: str | Path = "runs", **options: Any) -> None:
    """Print the tables of all finished runs below a folder, and write them to files.

    Args:
        options: of `harl-bench report`: html, md, tex, csv, pack (files), add (a file or a list of
            them), against, baseline, tables (a name or a list of them), columns.
    """
    files = {"html", "md", "tex", "csv", "pack"}
    given: dict[str, Any] = {k: Path(v) if k in files and v else v for k, v in options.items()}
    for name, kind in (("add", Path), ("tables", str)):
        if (value := options.get(name)) is not None:
            given[name] = [kind(v) for v in ([value] if isinstance(value, str | Path) else value)]
    report(Path(runs), **given)


def _evaluated(
    command: Callable[..., list[Path]],
    checkpoint: Checkpoint,
    data: str | Path,
    overrides: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[Result]:
    """Return the results of a command's runs; none of a dry run."""
    out = Path(options.get("out", "runs"))
    with _file(checkpoint) as path:
        folders = command(path, *overrides, data=Path(data), **{**options, "out": out})
    return [read_result(folder / RESULT) for folder in folders]


def _backbone(checkpoint: Checkpoint, net: Net | None, seed: int) -> Backbone:
    with _file(checkpoint) as path:
        return read_backbone(path, net=net, seed=seed, archs=tuple(FEATURES))


@contextlib.contextmanager
def _file(checkpoint: Checkpoint) -> Iterator[str]:
    """Give the path of a checkpoint, of a state dict's temporary file while the block runs."""
    if isinstance(checkpoint, str | Path):
        yield str(checkpoint)
        return
    if not isinstance(checkpoint, Mapping):
        what, seen = "a checkpoint is a file or a state dict", type(checkpoint).__name__
        raise UsageError(what, seen=seen, next="give the state_dict() of a network")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state_dict.pth"
        torch.save(dict(checkpoint), path)
        yield str(path)


def _listed(images: str | Path | Sequence[str | Path]) -> tuple[Path, list[str]]:
    """Return a folder, and the images' paths relative to it."""
    if isinstance(images, str | Path):
        return Path(images), [str(path) for path in find_images(images)]
    names = [str(path) for path in images]
    if not names:
        raise DataError("no images", next="give a folder, or a list of files")
    return Path(), names


def _whole(labels: Rows, rows: Rows, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Hold nothing out."""
    return rows, rows[:0]
