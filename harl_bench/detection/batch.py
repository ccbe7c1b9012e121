"""The batch of a run: what it needs of a GPU's memory, and whether rate and schedule still fit
it.
"""

from typing import Any

# GiB for each image of 800 px in float32, and the same with --save-memory: the tensors kept for the
# backward pass, counted at 800 x 1066 to 800 x 1333, and the largest block computed again
# (tests/detection/test_memory.py).
IMAGE_GIB = {"C4": (4.1, 2.6), "FPN, 2 fc": (2.2, 1.4), "FPN, 4 conv + 1 fc": (2.5, 1.6)}
FIXED_GIB = 0.4  # weights, gradients and momentum


def departure(chosen: Any, written: Any, *, scaled: bool) -> str | None:
    """Say what another batch does to a schedule that was not scaled with it; None where the two
    fit.

    Args:
        chosen: the recipe with its overrides; written: the recipe as its file has it.
        scaled: --scale-lr was given.
    """
    ours, theirs = chosen.SOLVER, written.SOLVER
    if scaled or ours.IMS_PER_BATCH == theirs.IMS_PER_BATCH:
        return None
    larger = ours.IMS_PER_BATCH / theirs.IMS_PER_BATCH
    factors = {
        "the epochs": larger * ours.MAX_ITER / theirs.MAX_ITER,
        "the learning rate for each image": ours.BASE_LR / theirs.BASE_LR / larger,
    }
    wrong = [f"{factor:.3g} x {name}" for name, factor in factors.items() if abs(factor - 1) > 0.01]
    if not wrong:
        return None
    return (
        f"batch {ours.IMS_PER_BATCH} instead of {theirs.IMS_PER_BATCH} without --scale-lr: "
        f"{', '.join(wrong)}"
    )


def memory_gib(recipe: Any, images: int, *, save_memory: bool) -> float | None:
    """Return about how many GiB a GPU needs for so many images; None for recipes that are not of
    800 px.
    """
    if (
        max(recipe.INPUT.MIN_SIZE_TRAIN) != 800
        or recipe.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE != 512
    ):
        return None
    box = recipe.MODEL.ROI_BOX_HEAD
    fpn = "FPN, 4 conv + 1 fc" if box.NUM_CONV else "FPN, 2 fc"
    kind = fpn if "fpn" in recipe.MODEL.BACKBONE.NAME else "C4"
    return IMAGE_GIB[kind][save_memory] * images + FIXED_GIB


def advice(recipe: Any, processes: int, *, save_memory: bool, available_gib: float | None) -> str:
    """Return what to give instead when the GPU's memory is full.

    The batch is halved until it should fit, and stays a multiple of the processes.
    """
    ways = [] if save_memory else ["--save-memory (the same numbers, more time)"]
    batch = recipe.SOLVER.IMS_PER_BATCH
    smaller = [batch >> k for k in range(1, 10) if batch % (processes << k) == 0]
    needs = {n: memory_gib(recipe, n // processes, save_memory=save_memory) for n in smaller}
    fitting = [
        n
        for n, need in needs.items()
        if need is None or available_gib is None or need < available_gib
    ]
    if smaller:
        ways.append(f"--batch {(fitting or smaller[-1:])[0]} --scale-lr")
    return ", or ".join(ways) or "a GPU with more memory, or more of them"
