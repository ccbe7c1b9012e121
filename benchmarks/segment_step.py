"""Segmentation against mmsegmentation, in one run: training step, inference, loading, scoring.

Same weights, same crops, the two in turn (A B, B A, ...), medians and the median ratio of the
pairs; below 1 ours is faster. Needs mmsegmentation beside harl-bench (docs/segment.md) and a folder
with VOC 2012 and SegmentationClassAug.

    python -m benchmarks.segment_step DATA --side 256 --batch 2

--device cuda compares on a GPU.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pairs import compare
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
    timed = partial(_compare, options)
    steps = [_step(side, settings, x, labels) for side in (ours, theirs)]
    timed("training step", *steps)
    for side in (ours, theirs):
        side.model.eval()
    size = (options.side, options.side)
    with torch.no_grad():
        timed(
            "inference of an image",
            lambda: ours.whole(x[:1], size),
            lambda: theirs.whole(x[:1], size),
        )
    rows = [k % len(train.items) for k in range(options.images)]
    crops = batches.TrainingCrops(train, settings, seed=0)
    pipeline = mmseg_side.pipeline(settings, load=True)
    files = [train.items[row] for row in rows]
    timed(
        f"loading {len(rows)} crops, one process",
        lambda: [crops[k, row] for k, row in enumerate(rows)],
        lambda: [pipeline(mmseg_side.files(item.image, item.label)) for item in files],
    )
    pairs = [_pair(test, k % len(test.items)) for k in range(options.images)]
    timed(
        f"scoring {len(pairs)} images",
        lambda: sum(confusion.count(*pair, parity.CLASSES) for pair in pairs),
        lambda: [mmseg_side.areas(*pair) for pair in pairs],
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


def _compare(
    options: argparse.Namespace, what: str, ours: Callable[[], object], theirs: Callable[[], object]
) -> None:
    setting = f"{options.recipe} {options.side} px x {options.batch}, {what}"
    repeats, device = options.repeats, options.device
    compare(setting, ours, theirs, rival="mmsegmentation", repeats=repeats, device=device)


if __name__ == "__main__":
    main()
