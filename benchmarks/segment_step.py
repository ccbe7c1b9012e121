"""Segmentation against mmsegmentation, in one run: training step, inference, loading, scoring.

Same weights, same crops, the two in turn (A B, B A, ...), medians and the median ratio of the
pairs; below 1 ours is faster. Needs mmsegmentation beside harl-bench (docs/segment.md) and a folder
with VOC 2012 and SegmentationClassAug.

    python benchmarks/segment_step.py DATA --side 256 --batch 2

--device cuda compares on a GPU.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from harl_bench.segmentation import batches, confusion, datasets, recipe
from tests.golden import mmseg_side
from tests.segmentation import parity


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    parser.add_argument("--recipe", default="voc12aug-fcn-d8-20k")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--images", type=int, default=32, help="that are loaded and scored")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    sized = [f"input.crop_px={options.side}", *options.overrides]
    _, settings, _ = recipe.load(options.recipe, sized)
    train, test = datasets.read(settings.dataset, options.data)
    ours, theirs = parity.ours(settings), mmseg_side.theirs(settings)
    for side in (ours, theirs):
        side.model.to(options.device)
    x, labels = (t.to(options.device) for t in parity.inputs(options.side, options.side))
    x, labels = x[: options.batch], labels[: options.batch]
    steps = [_step(side, settings, x, labels) for side in (ours, theirs)]
    compare("training step", *steps, options)
    for side in (ours, theirs):
        side.model.eval()
    size = (options.side, options.side)
    with torch.no_grad():
        compare(
            "inference of an image",
            lambda: ours.whole(x[:1], size),
            lambda: theirs.whole(x[:1], size),
            options,
        )
    rows = [k % len(train.items) for k in range(options.images)]
    crops = batches.TrainingCrops(train, settings, seed=0)
    pipeline = mmseg_side.pipeline(settings, load=True)
    files = [train.items[row] for row in rows]
    compare(
        f"loading {len(rows)} crops, one process",
        lambda: [crops[k, row] for k, row in enumerate(rows)],
        lambda: [pipeline(mmseg_side.files(item.image, item.label)) for item in files],
        options,
    )
    pairs = [_pair(test, k % len(test.items)) for k in range(options.images)]
    compare(
        f"scoring {len(pairs)} images",
        lambda: sum(confusion.count(*pair, parity.CLASSES) for pair in pairs),
        lambda: [mmseg_side.areas(*pair) for pair in pairs],
        options,
    )


def _step(side: parity.Side, settings: recipe.Recipe, x: Any, labels: Any) -> Callable[[], None]:
    solver = settings.solver
    optimizer = torch.optim.SGD(side.model.parameters(), lr=solver.lr, momentum=solver.momentum)

    def step() -> None:
        side.model.train()
        optimizer.zero_grad()
        torch.stack(side.loss(x, labels)).sum().backward()
        optimizer.step()

    return step


def _pair(test: datasets.Split, row: int) -> tuple[np.ndarray, np.ndarray]:
    truth = test.label(row)
    return truth, np.where(truth == 255, 0, np.roll(truth, 5, axis=1) % parity.CLASSES)


def compare(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], options: argparse.Namespace
) -> None:
    """Time the two in turn after one warm-up each; print the medians of seconds and of ratios."""
    times: list[tuple[float, float]] = []
    for repeat in range(options.repeats + 1):
        taken = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            taken[which] = seconds((ours, theirs)[which], options.device)
        if repeat:
            times.append((taken[0], taken[1]))
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    setting = f"{options.recipe} {options.side} px x {options.batch}"
    print(
        f"{setting}, {what}: ours {first:.3f} s, mmsegmentation {second:.3f} s, ratio {ratio:.3f}",
        flush=True,
    )


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall time of one call, the device's queue drained."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
