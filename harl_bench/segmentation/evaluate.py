"""The confusion matrix of a test set: one image at a time, each process its part."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import Tracker
from harl_bench.core.stopping import stoppable
from harl_bench.nn import checkpoint, distributed
from harl_bench.segmentation import batches, confusion, inference, network
from harl_bench.segmentation.confusion import Labels, Matrix
from harl_bench.segmentation.job import Job

HEAD = "decode_head."  # of the names of a segmenter's tensors, ours and mmsegmentation's


def evaluate(
    job: Job, weights: Path, keep: Collection[int] = (), what: str = "evaluate"
) -> tuple[Matrix, dict[int, Labels]]:
    """Return the confusion matrix of a trained segmenter, and its predictions for some rows.

    Raises:
        CheckpointError: the file does not hold this recipe's segmenter.
        DataError: a test image or label cannot be read.
        PreemptedError, KeyboardInterrupt: asked to stop.
    """
    device, classes = torch.device(job.device), len(job.test.classes)
    model = network.build(job.recipe, classes, job.backbone)
    try:
        model.load_state_dict(tensors(weights))
    except RuntimeError as error:
        seen = " ".join(str(error).split())[:200]
        raise CheckpointError("not a segmenter of this recipe", where=weights, seen=seen) from None
    model.to(device).eval()
    rank, world = distributed.rank(), distributed.world_size()
    stream = batches.evaluation_images(
        job.test, job.recipe, workers=job.workers, rank=rank, world=world
    )
    matrix, kept = np.zeros((classes, classes), np.int64), {}
    began, counting_s = time.monotonic(), 0.0
    with (
        stoppable() as stop,
        torch.inference_mode(),
        Tracker(what, len(job.test.items) // world, unit="images") as tracker,
    ):
        for sample in stream:
            stop.raise_if_asked("while evaluating; the trained network is kept")
            image = sample["image"][None].to(device)
            x = batches.normalized(image, job.recipe, job.backbone.input)
            truth = sample["label"]
            predicted = inference.predict(
                model, x, truth.shape, job.recipe.test, align_corners=job.recipe.align_corners
            )
            at = time.monotonic()
            matrix += confusion.count(truth, predicted, classes)
            counting_s += time.monotonic() - at
            if sample["row"] in keep:
                kept[sample["row"]] = predicted
            tracker.advance(counting=f"{counting_s / (time.monotonic() - began):.1%}")
    parts = distributed.gather((matrix, kept))
    predictions = {row: labels for _, part in parts for row, labels in part.items()}
    return np.sum([part for part, _ in parts], axis=0), predictions


def tensors(path: Path) -> dict[str, Tensor]:
    """Return a segmenter's tensors: of our saved state, or of mmsegmentation's `state_dict`.

    Raises:
        CheckpointError: unreadable, or no segmenter.
    """
    payload, _ = checkpoint.read(path)
    found = state(payload)
    if found is None:
        raise CheckpointError("not a checkpoint of a segmenter", where=path)
    return found


def state(payload: Any) -> dict[str, Tensor] | None:
    """Return the state dict of a segmenter in a file's content, None if it holds none."""
    holder = payload if isinstance(payload, dict) else {}
    for name in ("model", "state_dict"):
        tensors = holder.get(name)
        if isinstance(tensors, dict) and any(str(key).startswith(HEAD) for key in tensors):
            return tensors
    return None
