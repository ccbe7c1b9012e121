"""The learning rate of a step."""

from harl_bench.segmentation.recipe import Solver


def rate(solver: Solver, iteration: int) -> float:
    """Return the learning rate of a step, counted from 0.

    "poly" reaches lr_min in the last step, as mmengine's PolyLR does: its `total_iters` is
    end - begin - 1. mmcv's older hook divides by the number of steps itself.
    """
    if solver.schedule == "steps":
        passed = sum(iteration >= step for step in solver.steps)
        return float(solver.lr * solver.factor**passed)
    left = 1 - iteration / max(1, solver.iterations - 1)
    return float((solver.lr - solver.lr_min) * left**solver.power + solver.lr_min)
