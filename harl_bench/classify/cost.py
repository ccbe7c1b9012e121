"""What a classification takes, for --dry-run."""

from collections.abc import Sequence
from pathlib import Path

from harl_bench.classify.datasets import DataSet
from harl_bench.classify.protocol import STORED, Settings
from harl_bench.core.progress import duration
from harl_bench.core.summary import took

FEATURES_PER_S = 1_746  # of a ResNet-50 at 224 px in float32 on one H200 (docs/gpu.md)
GIB = 2**30


def passes(images: DataSet, settings: Settings) -> int:
    """Return the number of images through the network.

    Features are shared, so they include the images that a list of labelled images leaves out.
    """
    train, val, test = (len(images.divided(0)[split]) for split in ("train", "val", "test"))
    others = len(images.splits.get("others", ())) - val if settings.kind in STORED else 0
    return max(others, 0) + settings.cost(train, val, test)


def memory(images: DataSet, settings: Settings, width: int) -> str:
    """Return the memory of the solver or the neighbours. Training has no such fixed need."""
    solver = getattr(settings, "memory", None)
    if solver is None:
        return "not known; a GPU without enough of it ends the run with what to change"
    divided = images.divided(0)
    held = len(divided["train"]) + (len(divided["val"]) if getattr(settings, "refit", True) else 0)
    single, double = (f"{size / GIB:.1f}" for size in solver(held, len(images.classes), width))
    more = f", {double} where float64 must finish" if double != single else ""
    return f"about {single} GiB{more}"


def disk(images: DataSet, settings: Settings, width: int) -> str:
    """Return the disk of the features, which all runs of a network share."""
    size = 4 * width * len(images.paths) / GIB if settings.kind in STORED else 0.0
    return f"the features take {size:.1f} GiB" if size else "no features are stored"


def time(images: DataSet, settings: Settings, width: int, finished: Sequence[Path]) -> str:
    """Return how long the features take, which all runs of a network share, or a whole training."""
    if finished and settings.kind in STORED:
        return "the features are stored; what remains was not measured"
    if known := took(finished):
        return known
    measured = settings.kind in STORED and settings.precision == "float32"
    if not measured or (settings.image_size, width) != (224, 2048):
        return "not known until one has finished here"
    seconds = passes(images, settings) / FEATURES_PER_S
    return (
        f"features about {duration(seconds)} on one H200, {FEATURES_PER_S:,} a second (docs/gpu.md)"
    )
