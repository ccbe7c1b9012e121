"""One run in its own process or processes: choose the rate, train, evaluate, draw."""

from pathlib import Path
from typing import Any

import torch

from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes
from harl_bench.core.progress import log
from harl_bench.nn import distributed, runtime
from harl_bench.segmentation import memory, preview, sweep
from harl_bench.segmentation.confusion import Matrix
from harl_bench.segmentation.evaluate import evaluate
from harl_bench.segmentation.job import Job
from harl_bench.segmentation.train import train


def measure(job: Job, weights: Path | None, n_images: int) -> tuple[Matrix, dict[str, Any]] | None:
    """Train and evaluate one segmenter; with `weights`, only evaluate those.

    Returns:
        In the first process, the confusion matrix and {"unreadable": {path: reason}, "wall_s":
        seconds over all sessions, "peak_memory_mb", "selection" of a sweep}, else None.
    """
    about: dict[str, Any] = {"unreadable": {}, "wall_s": 0.0}
    runtime.forget_peak_memory()
    with runtime.gpu_memory(_advice(job)):
        if weights is None:
            torch.backends.cudnn.benchmark = True  # all crops are of one size
            if job.recipe.sweep:
                job, about["selection"] = sweep.select(job)
            about |= train(job)
            points = about.get("selection", {}).get("grid", [])
            about["wall_s"] += sum(point["wall_s"] for point in points)
        final = weights or job.last
        if not final.is_file():
            raise CheckpointError("training left no checkpoint", where=final)
        torch.backends.cudnn.benchmark = False  # test images are of many
        matrix, predictions = evaluate(job, final, preview.rows(job.test, n_images))
    if not distributed.is_main():
        return None
    if unreadable := about["unreadable"]:
        lines = "".join(f"{path}\t{reason}\n" for path, reason in sorted(unreadable.items()))
        write_bytes(job.folder / "unreadable.txt", lines.encode("utf-8", "surrogateescape"))
        message = "%d training images could not be read, listed in unreadable.txt"
        log.warning(message, len(unreadable))
    preview.write(job.folder / "pictures", job.test, predictions)
    return matrix, about | {"peak_memory_mb": runtime.peak_memory_mb()}


def _advice(job: Job) -> str:
    """Return what to try when the GPU's memory is full."""
    if job.device == "cpu":
        return "a smaller batch"
    need = memory.per_image_gib(job.recipe, len(job.train.classes))
    batch, world = job.recipe.solver.batch, distributed.world_size()
    fits = max(1, int((runtime.gpu_gib() - 2) / need)) * world
    smaller = max((n for n in range(world, batch, world) if n <= fits), default=world)
    return f"more GPUs with the same batch, or --batch {smaller} --scale-lr"
