"""The torchvision engine against Detectron2's own, in one run: training step, inference, loading.

Same weights, same images, the two in turn (A B, B A, ...: whoever comes second finds warm caches
and a used heap), medians and the median ratio of the pairs; below 1 ours is faster. Needs an
installed Detectron2 (docs/detectron2.md) and a VOC or COCO folder for real images.

    python benchmarks/detection_step.py voc DATA --recipe voc-c4-24k --side 800 --batch 2

--device cuda and --amp compare on a GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from harl_bench.detection import detectron2_engine, recipe
from harl_bench.detection.datasets import coco, voc
from harl_bench.detection.torchvision_engine.data import training_batches
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.solver import build_optimizer, set_lr
from harl_bench.nn.runtime import seed_everything

READERS = {"voc": voc.read, "coco": coco.read}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=READERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="KEY.SUB=value")
    parser.add_argument("--recipe", default="voc-c4-24k")
    parser.add_argument("--side", type=int, default=800)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true")
    options = parser.parse_args()

    sizes = [f"INPUT.MIN_SIZE_TRAIN=({options.side},)", f"SOLVER.IMS_PER_BATCH={options.batch}"]
    cfg = recipe.load(options.recipe, [*sizes, *options.overrides])
    dataset = READERS[options.task](options.data, cfg.DATASETS.TRAIN[-1])
    seed_everything(0)
    ours, theirs = build_model(cfg), detectron2_engine.network(cfg, options.device)
    theirs.load_state_dict(ours.state_dict())
    ours.to(options.device)
    mapper = detectron2_engine.Mapper(cfg, dataset, training=True)
    batch = next(training_batches(dataset, cfg, seed=0))
    other = next(training_batches(dataset, cfg, seed=0, transform=mapper))
    our_optimizer = build_optimizer(cfg, ours)
    their_optimizer, _ = detectron2_engine.solver(cfg, theirs)
    set_lr(our_optimizer, cfg, 0)

    def step(
        losses: Callable[[], dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer
    ) -> None:
        with torch.autocast(options.device, enabled=options.amp):
            total = sum(losses().values())
        optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        optimizer.step()

    compare(
        "training step",
        lambda: step(lambda: ours(batch), our_optimizer),
        lambda: step(lambda: detectron2_engine.losses(theirs, other, 0), their_optimizer),
        options,
    )
    ours.eval(), theirs.eval()
    with torch.no_grad():
        compare("inference", lambda: ours(batch[:1]), lambda: theirs(other[:1]), options)
    compare(
        f"loading {8 * options.batch} images, one process",
        lambda: list(islice(training_batches(dataset, cfg, seed=0), 8)),
        lambda: list(islice(training_batches(dataset, cfg, seed=0, transform=mapper), 8)),
        options,
    )


def compare(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], options: argparse.Namespace
) -> None:
    """Time the two in turn after one warm-up each; print the medians of seconds and of ratios."""
    works = (ours, theirs)
    times: list[tuple[float, float]] = []
    for repeat in range(options.repeats + 1):
        taken = [0.0, 0.0]
        for which in (0, 1) if repeat % 2 else (1, 0):
            seed_everything(repeat)  # both sample the same boxes
            taken[which] = seconds(works[which], options.device)
        if repeat:
            times.append((taken[0], taken[1]))
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    setting = f"{options.recipe} {options.side} px x {options.batch}"
    print(
        f"{setting}, {what}: ours {first:.3f} s, Detectron2 {second:.3f} s, ratio {ratio:.3f}",
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
