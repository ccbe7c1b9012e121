"""Mask targets of a training batch: drawn by tensors, and three ways to draw them by pycocotools.

Detectron2 calls pycocotools for each sampled region. Beside it: one call for all regions, and a
thread that draws while the main one starts a step's operators on a fake device, which takes a
given time for them and computes without the CPU. Every way must give the same pixels.

    python -m benchmarks.mask_targets --points 30          # and --device cuda for ours on a GPU
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks.pairs import cpu_seconds, seconds
from harl_bench.detection.torchvision_engine.polygons import draw

SIZE = 28  # pixels of a target and side
OPERATORS = 300  # that the main thread starts between sampling and the mask loss


def scene(
    objects: int, regions: int, points: int
) -> tuple[list[list[NDArray[np.float64]]], NDArray[np.int64], NDArray[np.float32]]:
    """Return outlines of one part, a fifth of two, and boxes within a tenth of their objects'."""
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (objects, points)))
    radii = rng.uniform(15, 150, (objects, 1, 2)) * rng.uniform(0.6, 1, (objects, points, 1))
    outlines = np.stack([np.cos(angles), np.sin(angles)], axis=2) * radii
    outlines += rng.uniform(150, 850, (objects, 1, 2))
    polygons = [[o.ravel()] * (2 if i % 5 == 0 else 1) for i, o in enumerate(outlines)]
    low, high = outlines.min(axis=1), outlines.max(axis=1)
    index = rng.integers(0, objects, regions)
    shift = np.tile(high - low, 2)[index] * rng.uniform(-0.1, 0.1, (regions, 4))
    boxes = np.concatenate([low, high], axis=1)[index] + shift
    return polygons, index, boxes.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=112)
    parser.add_argument("--regions", type=int, default=2048, help="of 16 images")
    parser.add_argument("--points", type=int, default=30, help="of an outline")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fake-ms", type=float, default=150, help="what the fake device takes")
    options = parser.parse_args()
    polygons, index, boxes = scene(options.objects, options.regions, options.points)
    owners, corners = (torch.from_numpy(x).to(options.device) for x in (index, boxes))
    scales = np.float32(SIZE) / np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(0.1))

    def scaled(r: int) -> list[NDArray[np.float64]]:
        outlines = polygons[index[r]]
        return [((o.reshape(-1, 2) - boxes[r, :2]) * scales[r]).ravel() for o in outlines]

    def single() -> NDArray[np.bool_]:
        rows = range(len(index))
        rles = [coco.merge(coco.frPyObjects(scaled(r), SIZE, SIZE)) for r in rows]
        return np.stack([coco.decode(rle) for rle in rles]).astype(bool)

    def at_once() -> NDArray[np.bool_]:
        outlines = [scaled(r) for r in range(len(index))]
        parts = coco.decode(
            coco.frPyObjects([o for several in outlines for o in several], SIZE, SIZE)
        )
        starts = np.cumsum([0, *map(len, outlines[:-1])])
        return np.bitwise_or.reduceat(parts.transpose(2, 0, 1), starts, axis=0).astype(bool)

    def tensor() -> torch.Tensor:
        return draw(polygons, owners, corners, SIZE)

    def on_fake_device() -> None:
        ends, x = time.perf_counter() + options.fake_ms / 1000, torch.zeros(8)
        for _ in range(OPERATORS):
            x = x + 1
        time.sleep(max(0.0, ends - time.perf_counter()))

    def first(targets: Callable[[], object]) -> None:
        targets()
        on_fake_device()

    def beside(targets: Callable[[], object]) -> None:
        with ThreadPoolExecutor(1) as thread:
            drawn = thread.submit(targets)
            on_fake_device()
            drawn.result()

    ours = tensor().cpu().numpy()
    assert np.array_equal(ours, single()), "not pycocotools' pixels"
    assert np.array_equal(ours, at_once()), "not pycocotools' pixels"
    ways = {"pycocotools": single, "pycocotools at once": at_once, "tensors": tensor}
    device, repeats = options.device, range(options.repeats)
    print(f"{options.regions} regions, outlines of {options.points} points, microseconds a region")
    for name, way in ways.items():
        clock = (
            partial(seconds, device=device) if way is tensor and device != "cpu" else cpu_seconds
        )
        per_region = median(clock(way) for _ in repeats) / options.regions
        print(f"  {name}: {1e6 * per_region:.1f} on {device if way is tensor else 'the CPU'}")
    print(f"a fake device that takes {options.fake_ms:.0f} ms, {OPERATORS} operators")
    for order, run in (("drawn first", first), ("in a thread", beside)):
        for name, way in ways.items():
            taken = median(seconds(partial(run, way), device) for _ in repeats)
            print(f"  {order}, {name}: {1000 * taken:.0f} ms")


if __name__ == "__main__":
    main()
