"""One run in its own process or processes: train, evaluate, score, draw."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import write_bytes
from harl_bench.core.progress import Tracker, log
from harl_bench.detection import batch, images
from harl_bench.detection.datasets.sample import Dataset, Sample
from harl_bench.detection.engines import ENGINES, Job
from harl_bench.detection.metrics import coco
from harl_bench.detection.scoring import INFERENCE, Scores, score
from harl_bench.nn import distributed, runtime


def require_scorable(test: Dataset, evaluator: str) -> None:
    """Load COCO's ground truth and decode every test image once: a score needs them all.

    Raises:
        DataError: an image is unreadable, or of another size than its annotation says.
        MachineError: the evaluator is not installed.
    """
    from harl_bench.detection.torchvision_engine.transforms import require_readable

    if test.truth:
        coco.load(test.truth, evaluator)
    _require("check test images", test, require_readable)


def require_trainable(train: Dataset) -> None:
    """Compare the size of every training image, in its header, with its annotation.

    Raises:
        DataError: they differ, which would end the training when it comes to the image.
    """
    from harl_bench.detection.torchvision_engine.transforms import require_size

    _require("check sizes of training images", train, require_size)


def _require(what: str, dataset: Dataset, check: Callable[[Sample], None]) -> None:
    samples = dataset.samples
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Tracker(what, len(samples), unit="images") as tracker,
    ):
        for _ in pool.map(lambda i: check(samples[i]), range(len(samples))):
            tracker.advance()


def measure(
    engine: str, job: Job, weights: Path | None, n_images: int
) -> tuple[Scores, dict[str, Any]] | None:
    """Train and evaluate one detector; with `weights`, only evaluate those.

    Returns:
        In the first process, the scores and {"unreadable": {path: reason}, "wall_s": seconds over
        all sessions, "peak_memory_mb"}, else None.
    """
    train, evaluate = ENGINES[engine].load()
    if job.device == "cuda":
        import torch

        torch.backends.cudnn.benchmark = False  # sizes change from batch to batch
    about: dict[str, Any] = {"unreadable": {}, "wall_s": 0.0}
    if not weights:
        with runtime.gpu_memory(_advice(job)):
            about = train(job)
    final = weights or job.folder / "checkpoints" / "model_final.pth"
    if not final.is_file():
        raise CheckpointError("training left no checkpoint", where=final)
    predictions = evaluate(job, final)
    if not distributed.is_main():
        return None
    masks = bool(job.recipe.MODEL.MASK_ON)
    scores = score(
        job.test, predictions, masks=masks, folder=job.folder / INFERENCE, library=job.evaluator
    )
    if unreadable := about["unreadable"]:
        lines = "".join(f"{path}\t{reason}\n" for path, reason in sorted(unreadable.items()))
        write_bytes(job.folder / "unreadable.txt", lines.encode("utf-8", "surrogateescape"))
        message = "%d training images could not be read, listed in unreadable.txt"
        log.warning(message, len(unreadable))
    images.write(job.folder / "pictures", job.test, predictions, scores, n=n_images)
    return scores, about | {"peak_memory_mb": runtime.peak_memory_mb()}


def _advice(job: Job) -> str:
    available = None if job.device == "cpu" else runtime.gpu_gib()
    processes = distributed.world_size()
    return batch.advice(job.recipe, processes, save_memory=job.save_memory, available_gib=available)
