"""The time of a training, from one that was measured on a GPU.

Compute-bound layers take time by their multiply-adds, the others by the memory that they write. So
the ratio of a crop's time to the measured crop's lies between the ratios of these two.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from harl_bench.core.progress import duration
from harl_bench.segmentation import memory
from harl_bench.segmentation.network import build
from harl_bench.segmentation.recipe import Recipe

# voc12aug-fcn-d8-20k in float32 on one H200 (docs/gpu.md): crops a second, and the multiply-adds of
# a crop forward and the GiB kept for its way back, as counted here.
MEASURED, CROPS_PER_S, CROP_MULTIPLY_ADDS, CROP_GIB = "voc12aug-fcn-d8-20k", 105.5, 206.0e9, 1.11
SMALL_PX = 256  # smaller crops leave a GPU idle


def estimate(recipe: Recipe, classes: int) -> str:
    """Return how long a run takes to train, all trainings of a sweep together."""
    px = recipe.input.crop_px
    if px < SMALL_PX:
        return f"not known for crops of {px} px; the log gives an ETA"
    trainings = 1 + len(recipe.sweep.lr) if recipe.sweep else 1
    crops = trainings * recipe.solver.iterations * recipe.solver.batch
    ratios = (
        multiply_adds(recipe, classes) / CROP_MULTIPLY_ADDS,
        memory.per_image_gib(recipe, classes) / CROP_GIB,
    )
    low, high = (crops / CROPS_PER_S * ratio for ratio in sorted(ratios))
    span = duration(low) if high < 1.02 * low else f"{duration(low)} to {duration(high)}"
    compute, written = (f"{ratio:.2f}" for ratio in ratios)
    return (
        f"about {span} a run on one H200: {crops:,} crops, each {compute} x the multiply-adds and "
        f"{written} x the memory of {MEASURED}'s, {CROPS_PER_S} a second (docs/gpu.md)"
    )


def multiply_adds(recipe: Recipe, classes: int) -> float:
    """Return the multiply-adds of a crop, forward, counted on tensors without values."""
    side = recipe.input.crop_px
    with torch.device("meta"):
        model, x = build(recipe, classes), torch.empty(1, 3, side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return float(counter.get_total_flops() / 2)
