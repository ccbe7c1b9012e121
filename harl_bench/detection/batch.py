"""The batch of a run: its GPU memory and time, and how well rate and schedule fit it."""

from typing import Any

from harl_bench.detection.recipe_rules import is_fpn

# GiB for each image in float32, by its short side in px, and the same with --save-memory: the
# tensors kept for the backward pass, counted at 800 x 1066 to 800 x 1333 and, for Cityscapes, at
# 1024 x 2048, and the largest recomputed block (tests/detection/test_memory.py).
IMAGE_GIB = {
    ("C4", 800): (4.1, 2.6),
    ("FPN, 2 fc", 800): (2.2, 1.4),
    ("FPN, 4 conv + 1 fc", 800): (2.5, 1.6),
    ("FPN, 2 fc", 1024): (4.4, 2.5),
}
FIXED_GIB = 0.4  # weights, gradients and momentum
# Seconds an iteration on 8 V100, 16 images, frozen norms, by backbone and masks (D2:MODEL_ZOO.md).
MODEL_ZOO_S = {"C4": {False: 0.551, True: 0.584}, "FPN": {False: 0.210, True: 0.261}}
CITYSCAPES_S = 2 * 0.240  # the same of Cityscapes' larger images, measured with 8
LARGE_PX = 1200  # the longest side of its images, at least


def departure(recipe: Any, original: Any, *, scaled: bool) -> str | None:
    """Return the effect of another batch on a schedule not scaled with it, None if the two fit.

    Args:
        recipe: with its overrides. original: as in its file.
        scaled: --scale-lr was given.
    """
    ours, theirs = recipe.SOLVER, original.SOLVER
    if scaled or ours.IMS_PER_BATCH == theirs.IMS_PER_BATCH:
        return None
    larger = ours.IMS_PER_BATCH / theirs.IMS_PER_BATCH
    factors = {
        "the epochs": larger * ours.MAX_ITER / theirs.MAX_ITER,
        "the learning rate for each image": ours.BASE_LR / theirs.BASE_LR / larger,
    }
    effects = [f"{x:.3g} x {name}" for name, x in factors.items() if abs(x - 1) > 0.01]
    change = f"batch {ours.IMS_PER_BATCH} instead of {theirs.IMS_PER_BATCH} without --scale-lr"
    return f"{change}: {', '.join(effects)}" if effects else None


def memory_gib(recipe: Any, images: int, *, save_memory: bool) -> float | None:
    """Return about how many GiB a GPU needs for so many images, None for sizes not counted."""
    box = recipe.MODEL.ROI_BOX_HEAD
    fpn = "FPN, 4 conv + 1 fc" if box.NUM_CONV else "FPN, 2 fc"
    kind = fpn if is_fpn(recipe) else "C4"
    counted = IMAGE_GIB.get((kind, max(recipe.INPUT.MIN_SIZE_TRAIN)))
    if counted is None or recipe.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE != 512:
        return None
    return counted[save_memory] * images + FIXED_GIB


def iteration_s(recipe: Any, task: str) -> float | None:
    """Return the seconds of an iteration by the published speeds, None for small images."""
    if recipe.INPUT.MAX_SIZE_TRAIN < LARGE_PX:
        return None
    pace = MODEL_ZOO_S["FPN" if is_fpn(recipe) else "C4"][recipe.MODEL.MASK_ON]
    pace = CITYSCAPES_S if task == "cityscapes" else pace
    return float(pace * recipe.SOLVER.IMS_PER_BATCH / 16)


def advice(recipe: Any, processes: int, *, save_memory: bool, available_gib: float | None) -> str:
    """Return the options to try when the GPU's memory is full.

    The batch is halved until it should fit, and stays a multiple of the processes.
    """
    options = [] if save_memory else ["--save-memory (the same numbers, more time)"]

    def fits(batch: int) -> bool:
        need = memory_gib(recipe, batch // processes, save_memory=save_memory)
        return need is None or available_gib is None or need < available_gib

    batch = recipe.SOLVER.IMS_PER_BATCH
    smaller = [batch >> k for k in range(1, 10) if batch % (processes << k) == 0]
    if smaller:
        options.append(f"--batch {next(filter(fits, smaller), smaller[-1])} --scale-lr")
    return ", or ".join(options) or "a GPU with more memory, or more of them"
