"""The torchvision engine against Detectron2's own, in one run: training step, inference, loading.

Same weights, same images, the two in turn (A B, B A, ...: whoever comes second finds warm caches
and a used heap), medians and the median ratio of the pairs; below 1 ours is faster. Needs an
installed Detectron2 (docs/detectron2.md) and a VOC or COCO folder for real images.

    python -m benchmarks.detection_step voc DATA --recipe voc-c4-24k --side 800 --batch 2

--device cuda and --amp compare on a GPU.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from benchmarks.pairs import compare
from harl_bench.detection import detectron2_model, recipe
from harl_bench.detection.datasets import coco, voc
from harl_bench.detection.datasets.sample import Dataset
from harl_bench.detection.torchvision_engine.data import training_batches
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.solver import build_optimizer, set_lr
from harl_bench.nn.runtime import seed_everything

READERS: dict[str, Callable[[Path, str], Dataset]] = {"voc": voc.read, "coco": coco.read}


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
    timed = partial(_compare, options)
    seed_everything(0)
    ours, theirs = build_model(cfg), detectron2_model.network(cfg, options.device)
    theirs.load_state_dict(ours.state_dict())
    ours.to(options.device)
    mapper = detectron2_model.Mapper(cfg, dataset, training=True)
    batch = next(training_batches(dataset, cfg, seed=0))
    other = next(training_batches(dataset, cfg, seed=0, transform=mapper))
    our_optimizer = build_optimizer(cfg, ours)
    their_optimizer, _ = detectron2_model.solver(cfg, theirs)
    set_lr(our_optimizer, cfg, 0)

    def step(
        losses: Callable[[], dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer
    ) -> None:
        with torch.autocast(options.device, enabled=options.amp):
            total = sum(losses().values())
        optimizer.zero_grad()
        total.backward()  # type: ignore[union-attr]
        optimizer.step()

    timed(
        "training step",
        lambda: step(lambda: ours(batch), our_optimizer),
        lambda: step(lambda: detectron2_model.losses(theirs, other, 0), their_optimizer),
    )
    ours.eval(), theirs.eval()
    with torch.no_grad():
        timed("inference", lambda: ours(batch[:1]), lambda: theirs(other[:1]))
    timed(
        f"loading {8 * options.batch} images, one process",
        lambda: list(islice(training_batches(dataset, cfg, seed=0), 8)),
        lambda: list(islice(training_batches(dataset, cfg, seed=0, transform=mapper), 8)),
    )


def _compare(
    options: argparse.Namespace, what: str, ours: Callable[[], object], theirs: Callable[[], object]
) -> None:
    setting = f"{options.recipe} {options.side} px x {options.batch}, {what}"
    repeats, device = options.repeats, options.device
    compare(setting, ours, theirs, rival="Detectron2", repeats=repeats, device=device)


if __name__ == "__main__":
    main()
